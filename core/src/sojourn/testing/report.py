"""What came of a contract: counts per level and group, and the level up to which the driver conforms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Literal, TypeAlias

import attrs

from sojourn.testing.clauses import Clause, Level

__all__ = ["ContractReport", "Verdict"]

Verdict: TypeAlias = Literal["passed", "failed", "expected_failure", "undeclared", "skipped", "not_run"]
VERDICTS: tuple[Verdict, ...] = ("passed", "failed", "expected_failure", "undeclared", "skipped", "not_run")


@attrs.define(eq=False)
class ContractReport:
    """The verdicts of one contract class.

    Args:
        title: the class, as pytest names it.
        clauses: all that belong to the contract.
        driver: the driver's name, once a clause has run.
    """

    title: str
    clauses: tuple[Clause, ...]
    driver: str | None = None
    verdicts: dict[str, Verdict] = attrs.field(factory=dict, init=False)
    reasons: dict[str, str] = attrs.field(factory=dict, init=False)

    def note(self, name: str, verdict: Verdict, reason: str = "") -> None:
        """Record what came of a clause; a failure is not taken back."""
        if self.verdicts.get(name) != "failed":
            self.verdicts[name] = verdict
            if reason:
                self.reasons[name] = reason

    def verdict(self, clause: Clause) -> Verdict:
        """Return what came of a clause."""
        return self.verdicts.get(clause.name, "not_run")

    def counts(self, clauses: Iterable[Clause]) -> dict[str, int]:
        """Return how many clauses have which verdict."""
        counted = Counter(self.verdict(clause) for clause in clauses)
        return {verdict: counted[verdict] for verdict in VERDICTS}

    def conformant(self) -> Level | None:
        """Return the highest level up to which nothing failed or was left out, but for undeclared capabilities."""
        reached: Level | None = None
        for level in Level:
            if any(self.verdict(c) not in ("passed", "undeclared") for c in self.clauses if c.level is level):
                return reached
            reached = level
        return reached

    def line(self) -> str:
        """Return the one line for people."""
        levels = []
        for level in Level:
            counts = self.counts(c for c in self.clauses if c.level is level)
            levels.append(f"{level} {counts['passed']}/{sum(counts.values())}")
        conformant = self.conformant()
        said = f"conformant {conformant}" if conformant else "not conformant"
        return f"{self.title} (driver {self.driver or '?'}): {', '.join(levels)}; {said}"

    def document(self) -> dict[str, object]:
        """Return everything as plain JSON data."""
        groups = dict.fromkeys(clause.group for clause in self.clauses)
        return {
            "class": self.title,
            "driver": self.driver,
            "conformant": self.conformant(),
            "levels": {level.value: self.counts(c for c in self.clauses if c.level is level) for level in Level},
            "groups": {group: self.counts(c for c in self.clauses if c.group == group) for group in groups},
            "clauses": {
                clause.name: {
                    "group": clause.group,
                    "level": clause.level.value,
                    "verdict": self.verdict(clause),
                    "reason": self.reasons.get(clause.name),
                }
                for clause in self.clauses
            },
        }
