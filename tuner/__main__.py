"""Lists tuner's commands, and runs one of them: `python -m tuner search`."""

import sys

from kernorm.__main__ import run

if __name__ == "__main__":
    sys.exit(run({"search": "tuner.search"}, "python -m tuner", sys.argv[1:]))
