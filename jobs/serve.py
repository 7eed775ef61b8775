"""`ray job submit --working-dir . -- python jobs/serve.py ...`: the arguments of `rec serve`."""

import sys

from rec.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["serve", *sys.argv[1:]]))
