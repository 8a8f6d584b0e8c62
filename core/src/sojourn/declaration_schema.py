"""The JSON Schema of ``sojourn.toml`` with the configs of the installed drivers, for editors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sojourn.configfields import json_schema
from sojourn.declarations import FILE_NAME, Declaration, DeclaredAdapter, DeclaredEnvironment
from sojourn.drivers import LoadedDriver
from sojourn.stored_environments import TIMEOUTS

__all__ = ["schema"]


def schema(drivers: Sequence[LoadedDriver]) -> dict[str, Any]:
    """Return the JSON Schema of ``sojourn.toml`` with the configs of ``drivers``."""
    environment = json_schema(DeclaredEnvironment)
    environment["properties"]["driver"] |= {"examples": [driver.name for driver in drivers]}
    environment["properties"]["max_leases"] |= {"minimum": 1}
    environment["properties"]["timeouts"] |= {"propertyNames": {"enum": sorted(TIMEOUTS)}}
    environment["properties"]["timeouts"]["additionalProperties"] = {"type": "number", "exclusiveMinimum": 0}
    environment["allOf"] = [
        {
            # `required`: without it a table that names no driver yet would have to fit every one of them.
            "if": {"properties": {"driver": {"const": driver.name}}, "required": ["driver"]},
            "then": {
                "properties": {"config": json_schema(driver.info.config_class)},
                # A driver that needs something needs the table in which it is said.
                "required": ["config"] if json_schema(driver.info.config_class)["required"] else [],
            },
        }
        for driver in drivers
    ]
    whole = json_schema(Declaration)
    whole["properties"]["environments"]["additionalProperties"] = environment
    whole["properties"]["adapters"]["additionalProperties"] = json_schema(DeclaredAdapter)
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": FILE_NAME, **whole}
