"""`ray job submit --working-dir . -- python jobs/predict.py ...`: the arguments of `rec predict`."""

import sys

from rec.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["predict", *sys.argv[1:]]))
