"""`ray job submit --working-dir . -- python jobs/tune.py ...`: the arguments of `rec tune`."""

import sys

from rec.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["tune", *sys.argv[1:]]))
