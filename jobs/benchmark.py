"""`ray job submit --working-dir . -- python jobs/benchmark.py ...`: the arguments of `rec benchmark`."""

import sys

from rec.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["benchmark", *sys.argv[1:]]))
