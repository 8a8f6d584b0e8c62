"""The local driver of sojourn: runs commands on this machine and proves that their whole process tree has ended.

Importing this package is cheap; the driver and its config are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["LocalConfig", "LocalDriver", "__version__"]

_HOME = {"LocalConfig": "sojourn_local.config", "LocalDriver": "sojourn_local.driver"}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'sojourn_local' has no attribute {name!r}")


if TYPE_CHECKING:
    from sojourn_local.config import LocalConfig as LocalConfig
    from sojourn_local.driver import LocalDriver as LocalDriver
