"""`ray job submit --working-dir . -- python jobs/evaluate.py ...`: the arguments of `rec evaluate`."""

import sys

from rec.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["evaluate", *sys.argv[1:]]))
