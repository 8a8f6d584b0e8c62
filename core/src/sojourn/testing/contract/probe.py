"""Clauses about probing: it looks, and makes nothing."""

from __future__ import annotations

from sojourn.testing.clauses import Level, clause
from sojourn.testing.contract.base import ContractBase
from sojourn.testing.kit import Kit

__all__ = ["ProbeClauses"]


class ProbeClauses(ContractBase):
    """A probe is harmless."""

    @clause(Level.L1)
    async def test_a_probe_says_yes_to_a_usable_config(self, kit: Kit) -> None:
        """A probe of the config with which everything else is tested says ok."""
        report = await kit.probe()
        assert report.ok, f"{report.summary}: {report.diagnostics}"
        assert report.summary

    @clause(Level.L1, "hook:inventory")
    async def test_a_probe_creates_nothing(self, kit: Kit) -> None:
        """After ten probes the inventory is as empty as before."""
        for _ in range(10):
            await kit.probe()
        assert await kit.inventory() == []

    @clause(Level.L1, "hook:probe", "given:unusable_config")
    async def test_a_probe_says_no_and_does_not_raise(self, kit: Kit) -> None:
        """A probe of an unusable environment returns a report with ok False and a diagnostic that says why."""
        report = await kit.probe(self.unusable_config)
        assert not report.ok
        assert report.summary
        assert report.diagnostics, "a report that says no tells what is wrong in its diagnostics"
