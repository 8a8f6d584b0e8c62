"""Where sojourn keeps what it has to remember between runs."""

from __future__ import annotations

from pathlib import Path

import platformdirs

__all__ = ["state_dir"]


def state_dir() -> Path:
    """Return the user's state directory for sojourn, ``$XDG_STATE_HOME/sojourn`` or ``~/.local/state/sojourn``; not created."""
    return Path(platformdirs.user_state_dir("sojourn", appauthor=False))
