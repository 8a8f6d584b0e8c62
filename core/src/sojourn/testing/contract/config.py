"""Clauses about a driver's config: read strictly, written back the same, secrets by reference."""

from __future__ import annotations

import json

import pytest

from sojourn import wire
from sojourn.errors import InvalidConfig
from sojourn.resolvers import secrets_in
from sojourn.testing.clauses import Level, clause
from sojourn.testing.contract.base import ContractBase
from sojourn.testing.kit import Kit

__all__ = ["ConfigClauses"]


class ConfigClauses(ContractBase):
    """A config is data."""

    @clause(Level.L1)
    async def test_an_unknown_config_key_is_refused(self, kit: Kit) -> None:
        """A config with a key that the driver does not know is an `InvalidConfig` that names the key."""
        with pytest.raises(InvalidConfig, match="no_such_key"):
            kit.driver.load_config({**kit.config_data, "no_such_key": 1}, "config")

    @clause(Level.L1)
    async def test_a_config_that_is_no_object_is_refused(self, kit: Kit) -> None:
        """A config that is a list, text or nothing is an `InvalidConfig`."""
        wrong: tuple[object, ...] = ([], "text", None)
        for data in wrong:
            with pytest.raises(InvalidConfig):
                kit.driver.load_config(data, "config")

    @clause(Level.L1)
    async def test_a_stored_config_is_read_back_the_same(self, kit: Kit) -> None:
        """Dumping a config and loading it again gives an equal config, any number of times."""
        config = kit.driver.load_config(kit.config_data, "config")
        stored = json.loads(json.dumps(wire.dump(config)))
        again = kit.driver.load_config(stored, "config")
        assert again == config
        assert wire.dump(again) == stored

    @clause(Level.L1)
    async def test_a_stored_config_may_have_more_keys(self, kit: Kit) -> None:
        """A release can read a config that another version stored with a key more."""
        config = kit.driver.load_config({**kit.config_data, "no_such_key": 1}, "config", lenient=True)
        assert config == kit.driver.load_config(kit.config_data, "config")

    @clause(Level.L5)
    async def test_secrets_of_a_config_stay_references(self, kit: Kit) -> None:
        """The value of a resolved secret is neither in the dump of a config nor in its repr."""
        config = await kit.config()
        values = [secret.reveal() for _, secret in secrets_in(config)]
        if not values:
            kit.undeclared("a secret in the config")
        shown = json.dumps(wire.dump(config)) + repr(config)
        assert not [value for value in values if value in shown]
