"""The contract that every driver has to keep, as one abstract test class; each module holds the clauses of one group."""

from __future__ import annotations

from sojourn.testing.contract.base import ContractBase
from sojourn.testing.contract.config import ConfigClauses
from sojourn.testing.contract.environment import EnvironmentClauses
from sojourn.testing.contract.execute import ExecuteClauses
from sojourn.testing.contract.inventory import InventoryClauses
from sojourn.testing.contract.lifecycle import LifecycleClauses
from sojourn.testing.contract.load import LoadClauses
from sojourn.testing.contract.parallel import ParallelClauses
from sojourn.testing.contract.probe import ProbeClauses
from sojourn.testing.contract.recovery import RecoveryClauses
from sojourn.testing.contract.release import ReleaseClauses
from sojourn.testing.contract.stop import StopClauses
from sojourn.testing.contract.streams import StreamsClauses
from sojourn.testing.contract.volume import VolumeClauses

__all__ = ["GROUPS", "DriverContract"]

GROUPS = (
    LoadClauses,
    ConfigClauses,
    ProbeClauses,
    LifecycleClauses,
    InventoryClauses,
    ReleaseClauses,
    ExecuteClauses,
    EnvironmentClauses,
    StreamsClauses,
    StopClauses,
    ParallelClauses,
    RecoveryClauses,
    VolumeClauses,
)


class DriverContract(
    LoadClauses,
    ConfigClauses,
    ProbeClauses,
    LifecycleClauses,
    InventoryClauses,
    ReleaseClauses,
    ExecuteClauses,
    EnvironmentClauses,
    StreamsClauses,
    StopClauses,
    ParallelClauses,
    RecoveryClauses,
    VolumeClauses,
    ContractBase,
):
    """Subclass it, give it a driver and a config, and pytest runs every clause; see docs/how-to/write-a-driver.md."""
