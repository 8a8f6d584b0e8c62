"""The ``sojourn`` command. Its modules import what a command needs only when that command runs."""

from __future__ import annotations

from sojourn.cli.app import main

__all__ = ["main"]
