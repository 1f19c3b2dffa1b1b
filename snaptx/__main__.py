"""``python -m snaptx`` is the same command as ``snaptx``."""

from __future__ import annotations

import sys

from snaptx.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
