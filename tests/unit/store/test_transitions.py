"""No lease changes its status but by the table of transitions: every function is tried on every state."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sojourn.errors import LeaseLost
from sojourn.models import Disposition, ResourceState
from sojourn.records import Lease, LeaseOutcome, LeaseStatus
from sojourn.store import leases

S = LeaseStatus
SOON = datetime.now(UTC) + timedelta(hours=1)
FAILED = LeaseOutcome.FAILED

# name → (from, to, call)
FUNCTIONS: dict[str, tuple[set[S], set[S], Callable[..., Lease]]] = {
    "admit": ({S.WAITING}, {S.ACQUIRING}, lambda c, le, w: leases.admit(c, le)),
    "end_wait": ({S.WAITING}, {S.FAILED}, lambda c, le, w: leases.end_wait(c, le, reason="r")),
    "activate": (
        {S.ACQUIRING},
        {S.ACTIVE},
        lambda c, le, w: leases.activate(c, le, handle=None, provider_lease_id=None, metadata={}, expires_at=None),
    ),
    "fail_acquire": (
        {S.ACQUIRING},
        {S.EXPIRED},
        lambda c, le, w: leases.fail_acquire(c, le, reason="r", outcome=LeaseOutcome.EXPIRED),
    ),
    "acquire_unknown": (
        {S.ACQUIRING},
        {S.PENDING_CLEANUP},
        lambda c, le, w: leases.acquire_unknown(c, le, reason="r", outcome=FAILED, not_before=SOON),
    ),
    "resume_refused": (
        {S.ACQUIRING},
        {S.RETAINED},
        lambda c, le, w: leases.resume_refused(c, le, reason="r", retained_for="reuse"),
    ),
    "merge_metadata": ({S.ACTIVE}, {S.ACTIVE}, lambda c, le, w: leases.merge_metadata(c, le, {"a": 1})),
    "set_provision_fingerprint": (
        {S.ACTIVE},
        {S.ACTIVE},
        lambda c, le, w: leases.set_provision_fingerprint(c, le, "p"),
    ),
    "set_handle": ({S.ACTIVE}, {S.ACTIVE}, lambda c, le, w: leases.set_handle(c, le, {"v": 2})),
    "extend": ({S.ACTIVE}, {S.ACTIVE}, lambda c, le, w: leases.extend(c, le, SOON)),
    "claim_release": (
        {S.ACTIVE},
        {S.RELEASING},
        lambda c, le, w: leases.claim_release(
            c,
            le.id,
            le.epoch,
            holder_id=w.holder.id,
            outcome=FAILED,
            disposition=Disposition.DESTROY,
            failure_reason=None,
        ),
    ),
    "claim_release, any epoch": (
        {S.ACTIVE},
        {S.RELEASING},
        lambda c, le, w: leases.claim_release(
            c, le.id, None, holder_id=w.holder.id, outcome=FAILED, disposition=Disposition.KEEP, failure_reason=None
        ),
    ),
    "complete_release, gone": (
        {S.RELEASING},
        {S.RELEASED},
        lambda c, le, w: leases.complete_release(c, le, state=ResourceState.GONE, handle=None),
    ),
    "complete_release, kept": (
        {S.RELEASING},
        {S.RETAINED},
        lambda c, le, w: leases.complete_release(c, le, state=ResourceState.RUNNING, handle=None),
    ),
    "release_unproven": (
        {S.RELEASING},
        {S.PENDING_CLEANUP},
        lambda c, le, w: leases.release_unproven(c, le, error="e", next_try_at=SOON),
    ),
    "retire": ({S.RETAINED}, {S.PENDING_CLEANUP}, lambda c, le, w: leases.retire(c, le, "over")),
    "supersede": ({S.RETAINED}, {S.RELEASED}, lambda c, le, w: leases.supersede(c, le, w.new())),
    "claim_cleanup": (
        {S.PENDING_CLEANUP},
        {S.PENDING_CLEANUP},
        lambda c, le, w: leases.claim_cleanup(c, le, holder_id=w.holder.id, next_try_at=SOON),
    ),
    "cleanup_failed": ({S.PENDING_CLEANUP}, {S.PENDING_CLEANUP}, lambda c, le, w: leases.cleanup_failed(c, le, "e")),
    "cleanup_succeeded": ({S.PENDING_CLEANUP}, {S.RELEASED}, lambda c, le, w: leases.cleanup_succeeded(c, le)),
}


@pytest.mark.parametrize("status", list(LeaseStatus))
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_transition_moves_only_rows_in_its_own_states(world: Any, name: str, status: LeaseStatus) -> None:
    sources, targets, call = FUNCTIONS[name]
    before = world.in_state(status)
    if status in sources:
        world.do(call, before, world)
        after = world.get(before).status
        assert after in targets
        assert after == status or after in leases.TRANSITIONS[status]
    else:
        with pytest.raises(LeaseLost) as caught:
            world.do(call, before, world)
        assert caught.value.lease_id == before.id
        assert world.get(before) == before


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - {"claim_release, any epoch"}))
def test_a_transition_with_a_stale_epoch_is_lost(world: Any, name: str) -> None:
    import attrs

    sources, _, call = FUNCTIONS[name]
    (status,) = sources
    lease = world.in_state(status, epoch=5)
    for stale in (4, 6):
        with pytest.raises(LeaseLost, match="epoch 5"):
            world.do(call, attrs.evolve(lease, epoch=stale), world)
    assert world.get(lease) == lease


@pytest.mark.parametrize("status", list(LeaseStatus))
def test_a_takeover_moves_only_held_rows_and_raises_their_epoch(world: Any, status: LeaseStatus) -> None:
    before = world.in_state(status)
    taken = world.do(leases.take_over, world.holder.id, reason="gone")
    after = world.get(before)
    if status in (S.ACQUIRING, S.ACTIVE, S.RELEASING):
        assert taken == [after]
        assert (after.status, after.epoch) == (S.PENDING_CLEANUP, before.epoch + 1)
    elif status is S.WAITING:
        assert taken == []
        assert (after.status, after.epoch) == (S.FAILED, before.epoch + 1)
    else:
        assert taken == []
        assert after == before
    assert after.status == status or after.status in leases.TRANSITIONS[status]


def test_every_allowed_transition_is_made_by_some_function() -> None:
    made = {(source, target) for sources, targets, _ in FUNCTIONS.values() for source in sources for target in targets}
    # Their outcomes differ by argument or column; take_over's by its own test above.
    outcomes = {S.RELEASED, S.EXPIRED, S.FAILED}
    made |= {(source, other) for source, target in made if target in outcomes for other in outcomes}
    made |= {(source, S.PENDING_CLEANUP) for source in (S.ACQUIRING, S.ACTIVE, S.RELEASING)}
    allowed = {(source, target) for source, targets in leases.TRANSITIONS.items() for target in targets}
    assert allowed <= made


def test_a_lease_that_was_never_active_cannot_end_as_released(world: Any) -> None:
    lease = world.intent()
    with pytest.raises(ValueError, match="failed or expired"):
        world.do(leases.fail_acquire, lease, reason="r", outcome=LeaseOutcome.RELEASED)


def test_a_lease_begins_as_waiting_or_acquiring(world: Any) -> None:
    with pytest.raises(ValueError, match="begins"):
        world.do(leases.insert_intent, world.new(), status=S.ACTIVE)
    assert world.do(leases.insert_intent, world.new(), status=S.WAITING).status is S.WAITING
