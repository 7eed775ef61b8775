"""`ray job submit --working-dir . -- python jobs/report.py ...`: the arguments of `rec report`."""

import sys

from rec.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["report", *sys.argv[1:]]))
