"""``python -m sojourn`` is the ``sojourn`` command."""

from __future__ import annotations

import sys

from sojourn.cli import main

if __name__ == "__main__":
    sys.exit(main())
