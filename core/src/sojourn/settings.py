"""What an orchestrator can be told about time and size; every value has a default that suits one host."""

from __future__ import annotations

import attrs
from attrs.validators import ge, gt

__all__ = ["Settings"]

_positive = gt(0.0)


@attrs.frozen(kw_only=True)
class Settings:
    """Deadlines, limits and habits of one orchestrator. Environments may override the per-hook deadlines.

    Args:
        acquire_timeout_seconds: deadline of a driver's acquire.
        realize_timeout_seconds: deadline of a driver's realize.
        release_timeout_seconds: deadline of a driver's release.
        probe_timeout_seconds: deadline of a driver's probe.
        resume_timeout_seconds: deadline of a driver's resume.
        inventory_timeout_seconds: deadline of a driver's inventory.
        provision_timeout_seconds: time limit of a provision command.
        teardown_timeout_seconds: time limit of a teardown command.
        lease_lifetime_seconds: ``expires_at`` of a lease that asks for nothing else.
        grace_seconds: between TERM and KILL when a command is stopped.
        output_limit_bytes: how much of each stream a result keeps.
        abandon_after_seconds: how long a hook may take to end after its deadline.
        late_effect_seconds: how long an acquire of unknown outcome may still take effect; clean-up is not final before.
        acquire_tries: how often an acquire that is retryable is tried.
        retry_seconds: the longest wait between two tries.
        release_on_close: whether closing the orchestrator gives back the leases it still holds.
    """

    acquire_timeout_seconds: float = attrs.field(default=600.0, validator=_positive)
    realize_timeout_seconds: float = attrs.field(default=60.0, validator=_positive)
    release_timeout_seconds: float = attrs.field(default=120.0, validator=_positive)
    probe_timeout_seconds: float = attrs.field(default=30.0, validator=_positive)
    resume_timeout_seconds: float = attrs.field(default=60.0, validator=_positive)
    inventory_timeout_seconds: float = attrs.field(default=60.0, validator=_positive)
    provision_timeout_seconds: float = attrs.field(default=300.0, validator=_positive)
    teardown_timeout_seconds: float = attrs.field(default=60.0, validator=_positive)
    lease_lifetime_seconds: float = attrs.field(default=24 * 3600.0, validator=_positive)
    grace_seconds: float = attrs.field(default=5.0, validator=ge(0.0))
    output_limit_bytes: int = attrs.field(default=8 * 1024 * 1024, validator=ge(0))
    abandon_after_seconds: float = attrs.field(default=10.0, validator=_positive)
    late_effect_seconds: float = attrs.field(default=30.0, validator=ge(0.0))
    acquire_tries: int = attrs.field(default=5, validator=ge(1))
    retry_seconds: float = attrs.field(default=5.0, validator=ge(0.0))
    release_on_close: bool = True
