"""``python -m casdk``: the command line (`casdk.cli`)."""

import sys

from casdk.cli import main

if __name__ == "__main__":
    sys.exit(main())
