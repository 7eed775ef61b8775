"""`ray job submit --working-dir . -- python jobs/export.py ...`: the arguments of `rec export`."""

import sys

from rec.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["export", *sys.argv[1:]]))
