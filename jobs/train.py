"""`ray job submit --working-dir . -- python jobs/train.py ...`: the arguments of `rec train`."""

import sys

from rec.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["train", *sys.argv[1:]]))
