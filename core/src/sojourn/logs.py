"""The library's loggers: silent until the host application configures logging.

Not in ``sojourn`` itself, because ``import logging`` costs more than all the rest of ``import sojourn``.
"""

from __future__ import annotations

import logging

__all__ = ["logger"]

logging.getLogger("sojourn").addHandler(logging.NullHandler())


def logger(name: str) -> logging.Logger:
    """Return the logger ``sojourn`` or one below it."""
    return logging.getLogger(name)
