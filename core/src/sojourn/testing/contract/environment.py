"""Clauses about environment variables, and about what nobody else may see of a command."""

from __future__ import annotations

import os
import secrets

import pytest

from sojourn.errors import InvalidArgument
from sojourn.testing.clauses import Level, clause
from sojourn.testing.contract.base import ContractBase
from sojourn.testing.kit import Kit

__all__ = ["EnvironmentClauses"]

KIB = 1024


class EnvironmentClauses(ContractBase):
    """A command sees the variables that were asked for, and those only."""

    @clause(Level.L2)
    async def test_odd_values(self, kit: Kit) -> None:
        """Values with spaces, newlines, quotes and dollars, empty ones, and non-ASCII ones reach the command as they are."""
        async with kit.place() as place:
            for value in ("two words", "line\nline\n", "'\"", "$HOME ${X} `id`", "", "\\n", "ü€", "a=b", "-n"):
                result = await place.run(kit.programs.print_env("CONTRACT_VALUE"), env={"CONTRACT_VALUE": value})
                assert result.check().stdout == value.encode()

    @clause(Level.L2)
    async def test_a_large_value(self, kit: Kit) -> None:
        """A value of 100 KiB reaches the command as it is."""
        value = "v" * 100 * KIB
        async with kit.place() as place:
            result = await place.run(kit.programs.print_env("CONTRACT_VALUE"), env={"CONTRACT_VALUE": value})
            assert result.check().stdout == value.encode()

    @clause(Level.L2)
    async def test_names(self, kit: Kit) -> None:
        """Names of upper and lower case letters, digits and underscores, also of one letter, reach the command."""
        async with kit.place() as place:
            for name in ("a", "A_B_1", "_contract", "lower_Case9"):
                result = await place.run(kit.programs.print_env(name), env={name: "there"})
                assert result.check().stdout == b"there"

    @clause(Level.L2)
    async def test_variables_are_of_one_command(self, kit: Kit) -> None:
        """A variable of one command is not there in the next."""
        async with kit.place() as place:
            await place.run(kit.programs.exit(0), env={"CONTRACT_ONCE": "1"})
            assert (await place.run(kit.programs.print_env("CONTRACT_ONCE"))).exit_code == 1

    @clause(Level.L2)
    async def test_the_resource_id_is_there(self, kit: Kit) -> None:
        """SOJOURN_RESOURCE_ID is set to the resource id, whatever the request's variables say."""
        async with kit.place() as place:
            for env in ({}, {"SOJOURN_RESOURCE_ID": "forged"}):
                result = await place.run(kit.programs.print_env("SOJOURN_RESOURCE_ID"), env=env)
                assert result.check().stdout.decode() == place.resource_id

    @clause(Level.L5)
    async def test_our_own_variables_stay_here(self, kit: Kit) -> None:
        """A variable of the process that holds the lease is not in a command's environment."""
        os.environ["CONTRACT_CANARY"] = "canary"
        try:
            async with kit.place() as place:
                assert (await place.run(kit.programs.print_env("CONTRACT_CANARY"))).exit_code == 1
        finally:
            del os.environ["CONTRACT_CANARY"]

    @clause(Level.L5, "door:argv_of_all_processes")
    async def test_values_and_stdin_are_in_no_argv(self, kit: Kit) -> None:
        """While a command runs, neither a value of its variables nor its stdin is in the command line of any process."""
        canary = secrets.token_hex(16)
        async with kit.place() as place:
            options = {"env": {"CONTRACT_SECRET": canary}, "stdin": f"{canary}\n".encode()}
            async with place.running(kit.programs.sleep(30), streamed=True, **options) as command:
                await command.until_said(b"ready")
                lines = kit.door.argv_of_all_processes()
                assert not [line for line in lines if canary.encode() in line]

    @clause(Level.L5)
    async def test_an_error_shows_no_value(self, kit: Kit) -> None:
        """The error of a command that cannot be run holds no value of its variables."""
        canary = secrets.token_hex(16)
        async with kit.place() as place:
            with pytest.raises(InvalidArgument) as caught:
                await place.run(kit.programs.exit(0), cwd="/nonexistent/directory", env={"CONTRACT_SECRET": canary})
            assert canary not in f"{caught.value!r} {caught.value.__cause__!r}"
