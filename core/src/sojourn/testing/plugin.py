"""The pytest plugin of the contract kit; it costs nothing and does nothing until a contract class is collected."""

from __future__ import annotations
