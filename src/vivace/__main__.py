"""The command line as a module: `python -m vivace` is `vivace`, of whichever interpreter runs it."""

from __future__ import annotations

import sys

from vivace.cli import main

if __name__ == "__main__":
    sys.exit(main())
