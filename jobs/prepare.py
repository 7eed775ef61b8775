"""`ray job submit --working-dir . -- python jobs/prepare.py ...`: the arguments of `rec prepare`."""

import sys

from rec.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["prepare", *sys.argv[1:]]))
