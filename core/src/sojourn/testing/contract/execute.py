"""Clauses about running a command: argv as it is, exit status as it is."""

from __future__ import annotations

import pytest

from sojourn.errors import InvalidArgument
from sojourn.ids import new_id
from sojourn.models import Outcome
from sojourn.testing.clauses import Level, clause
from sojourn.testing.contract.base import ContractBase
from sojourn.testing.kit import Kit

__all__ = ["ExecuteClauses"]

ODD_WORDS = (
    "with space",
    "'",
    '"',
    "*",
    "a;b",
    "new\nline",
    "-n",
    "--",
    "",
    "$HOME",
    "`id`",
    "\\",
    "ü€",
    "&& true",
    "{a,b}",
)
KIB = 1024


class ExecuteClauses(ContractBase):
    """A command gets what was asked, and its end is told."""

    @clause(Level.L2)
    async def test_exit_status(self, kit: Kit) -> None:
        """The exit statuses 0, 1, 43 and 255 come back as they are, with outcome exited."""
        async with kit.place() as place:
            for code in (0, 1, 43, 255):
                result = await place.run(kit.programs.exit(code))
                assert (result.outcome, result.exit_code, result.signal) == (Outcome.EXITED, code, None), result.detail

    @clause(Level.L2)
    async def test_death_by_signal(self, kit: Kit) -> None:
        """A command that a signal ended has outcome signaled and 128 + the signal's number; the name, if given, is right."""
        async with kit.place() as place:
            for name, number in (("KILL", 9), ("TERM", 15)):
                result = await place.run(kit.programs.kill_self(name))
                assert (result.outcome, result.exit_code) == (Outcome.SIGNALED, 128 + number), result.detail
                assert result.signal in (None, f"SIG{name}")

    @clause(Level.L2)
    async def test_a_command_that_kills_itself_is_no_time_out(self, kit: Kit) -> None:
        """A command with a time limit that ends by SIGKILL of its own has outcome signaled, not timed_out."""
        async with kit.place() as place:
            result = await place.run(kit.programs.kill_self("KILL"), timeout_seconds=30.0)
            assert result.outcome is Outcome.SIGNALED, result.detail

    @clause(Level.L2)
    async def test_not_found(self, kit: Kit) -> None:
        """A program that does not exist exits with 127."""
        async with kit.place() as place:
            result = await place.run(kit.programs.not_found())
            assert (result.outcome, result.exit_code) == (Outcome.EXITED, 127), result.detail

    @clause(Level.L2)
    async def test_not_executable(self, kit: Kit) -> None:
        """A file that is not executable exits with 126."""
        async with kit.place() as place:
            result = await place.run(kit.programs.not_executable())
            assert (result.outcome, result.exit_code) == (Outcome.EXITED, 126), result.detail

    @clause(Level.L2)
    async def test_odd_words(self, kit: Kit) -> None:
        """Words with spaces, quotes, globs, newlines, dollars, leading dashes, and empty words, reach the command as they are."""
        async with kit.place() as place:
            result = await place.run(kit.programs.args(*ODD_WORDS))
            assert result.check().stdout.decode().split("\0")[:-1] == list(ODD_WORDS)

    @clause(Level.L2)
    async def test_long_words(self, kit: Kit) -> None:
        """A word of 100 KiB, and words of 1 MiB in all, reach the command as they are."""
        async with kit.place() as place:
            for words in (("x" * 100 * KIB,), tuple(f"{index:04}" + "y" * 60 * KIB for index in range(17))):
                result = await place.run(kit.programs.args(*words))
                assert result.check().stdout.decode().split("\0")[:-1] == list(words)

    @clause(Level.L2)
    async def test_cwd(self, kit: Kit) -> None:
        """A command runs in the realized root, or in the absolute directory that was asked for."""
        async with kit.place() as place:
            if place.cwd is not None:
                assert (await place.run(kit.programs.pwd())).check().stdout.decode() == f"{place.cwd}\n"
            assert (await place.run(kit.programs.pwd(), cwd="/")).check().stdout == b"/\n"

    @clause(Level.L2)
    async def test_a_missing_cwd_is_refused(self, kit: Kit) -> None:
        """A command in a directory that does not exist raises `InvalidArgument`, and does not run."""
        async with kit.place() as place:
            with pytest.raises(InvalidArgument):
                await place.run(kit.programs.exit(0), cwd="/nonexistent/directory")

    @clause(Level.L2)
    async def test_an_unknown_user_is_refused(self, kit: Kit) -> None:
        """A command for a user who does not exist raises `InvalidArgument`, and does not run."""
        async with kit.place() as place:
            with pytest.raises(InvalidArgument):
                await place.run(kit.programs.exit(0), user="no-such-user-9")

    @clause(Level.L2, "other_user")
    async def test_another_user(self, kit: Kit) -> None:
        """A command for another user runs as that user."""
        async with kit.place() as place:
            result = await place.run(kit.programs.whoami(), user=kit.capabilities.other_user, cwd="/")
            assert result.check().stdout.decode() == f"{kit.capabilities.other_user}\n"

    @clause(Level.L2, "keeps_files")
    async def test_one_exec_id_is_one_run(self, kit: Kit) -> None:
        """The same exec id sent twice runs the command once."""
        async with kit.place() as place:
            path, exec_id = f"{place.cwd}/ledger", new_id("exec")
            await place.run(kit.programs.append(path, "ran"), exec_id=exec_id)
            await place.run(kit.programs.append(path, "ran"), exec_id=exec_id)
            assert (await place.run(kit.programs.read(path))).stdout == b"ran\n"

    @clause(Level.L2)
    async def test_commands_one_after_the_other(self, kit: Kit) -> None:
        """Twenty commands in a row each have their own exit status and output."""
        async with kit.place() as place:
            for number in range(20):
                result = await place.run(kit.programs.say(f"command {number}"))
                assert (result.exit_code, result.stdout) == (0, f"command {number}".encode())

    @clause(Level.L2)
    async def test_times_are_told(self, kit: Kit) -> None:
        """A result says when the command started and how long it took."""
        async with kit.place() as place:
            result = await place.run(kit.programs.sleep(0.3))
            assert result.started_at.tzinfo is not None
            assert 0.25 <= result.duration.total_seconds() <= 0.3 + 10 * self.patience
