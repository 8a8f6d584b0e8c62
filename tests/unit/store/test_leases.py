"""What each lease transition stores, refuses and answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from sojourn.errors import LeaseLost
from sojourn.models import Disposition, ResourceState, RunContext
from sojourn.records import CleanupStatus, LeaseOutcome, LeasePolicy, LeaseStatus
from sojourn.store import LeaseExists, ResourceTaken, clock, environments, holders, leases

S = LeaseStatus


def now() -> datetime:
    return datetime.now(UTC)


def test_an_intent_reads_back_as_it_was_written(world: Any) -> None:
    new = world.new(metadata={"driver": "local"}, secret_versions={"env:A": "1"}, lease_key="k")
    lease = world.do(leases.insert_intent, new)
    assert lease == world.get(lease)
    assert (lease.context, lease.config, lease.metadata) == (new.context, {"port": 22}, {"driver": "local"})
    assert (lease.status, lease.epoch, lease.attempts, lease.handle) == (S.ACQUIRING, 1, 0, None)
    assert lease.expires_at - lease.created_at == timedelta(hours=24)
    assert lease.created_at.tzinfo is UTC


def test_the_same_run_and_key_gets_its_live_lease_named(world: Any) -> None:
    first = world.active(run_id="r")
    with pytest.raises(LeaseExists) as caught:
        world.intent(run_id="r")
    assert caught.value.existing == first
    assert world.intent(run_id="r", lease_key="other").status is S.ACQUIRING
    other = RunContext(tenant="t2", run_id="r", agent_id=None)
    assert world.intent(context=other).status is S.ACQUIRING


@pytest.mark.parametrize("status", [S.RETAINED, S.PENDING_CLEANUP, S.RELEASED, S.EXPIRED, S.FAILED])
def test_a_run_may_lease_again_when_its_lease_is_not_held_any_more(world: Any, status: LeaseStatus) -> None:
    old = world.in_state(status)
    assert world.intent(run_id=old.context.run_id).status is S.ACQUIRING


def test_leases_without_a_run_do_not_exclude_each_other(world: Any) -> None:
    assert world.intent(run_id=None).id != world.intent(run_id=None).id


@pytest.mark.parametrize("status", list(LeaseStatus))
def test_one_live_row_per_resource(world: Any, status: LeaseStatus) -> None:
    old = world.in_state(status)
    new = world.new(resource_id=old.resource_id, epoch=2)
    if status.terminal:
        assert world.do(leases.insert_intent, new).resource_id == old.resource_id
    else:
        with pytest.raises(ResourceTaken) as caught:
            world.do(leases.insert_intent, new)
        assert caught.value.existing == old


@pytest.mark.parametrize("holder", ["fenced", "missing"])
def test_a_fenced_or_missing_holder_takes_no_lease(world: Any, holder: str, soon: datetime) -> None:
    lease, pending = world.active(), world.in_state(S.PENDING_CLEANUP)
    if holder == "fenced":
        world.do(holders.fence, world.holder.id)
        holder = world.holder.id
    with pytest.raises(LeaseLost, match="holder"):
        world.do(leases.insert_intent, world.new(holder_id=holder))
    with pytest.raises(LeaseLost, match="holder"):
        release(world, lease, holder_id=holder)
    with pytest.raises(LeaseLost, match="holder"):
        world.do(leases.claim_cleanup, pending, holder_id=holder, next_try_at=soon)
    assert (world.get(lease), world.get(pending)) == (lease, pending)


def test_activate_puts_its_metadata_over_the_intents(world: Any, soon: datetime) -> None:
    lease = world.intent(metadata={"driver": "local", "a": 1})
    active = world.do(
        leases.activate, lease, handle={"pid": 1}, provider_lease_id="p", metadata={"a": 2}, expires_at=soon
    )
    assert active.metadata == {"driver": "local", "a": 2}
    assert (active.handle, active.provider_lease_id, active.expires_at) == ({"pid": 1}, "p", soon)
    assert active.acquired_at is not None


def test_what_changes_while_active_is_stored(world: Any, soon: datetime) -> None:
    lease = world.active(metadata={"a": 1})
    assert world.do(leases.merge_metadata, lease, {"b": None, "c": [1]}).metadata == {"a": 1, "b": None, "c": [1]}
    # The snapshot is old: another patch must not undo the first.
    assert world.do(leases.merge_metadata, lease, {"d": 4}).metadata == {"a": 1, "b": None, "c": [1], "d": 4}
    assert world.do(leases.set_provision_fingerprint, lease, "p").provision_fingerprint == "p"
    assert world.do(leases.set_handle, lease, {"v": 9}).handle == {"v": 9}
    assert world.do(leases.extend, lease, soon).expires_at == soon


def test_a_failed_acquire_is_over_and_clean(world: Any) -> None:
    lease = world.do(leases.fail_acquire, world.intent(), reason="no disk")
    assert (lease.status, lease.outcome, lease.cleanup_status) == (S.FAILED, LeaseOutcome.FAILED, CleanupStatus.SUCCESS)
    assert (lease.failure_reason, lease.ended_at is not None) == ("no disk", True)


def release(world: Any, lease: Any, **changes: Any) -> Any:
    values = {
        "holder_id": world.holder.id,
        "outcome": LeaseOutcome.RELEASED,
        "disposition": Disposition.DESTROY,
        "failure_reason": None,
        "epoch": lease.epoch,
        **changes,
    }
    return world.do(leases.claim_release, lease.id, values.pop("epoch"), **values)


def test_the_claimer_becomes_the_holder_and_its_reason_wins(world: Any, make_holder: Any) -> None:
    other = world.do(holders.register, make_holder("holder-2"))
    lease = world.in_state(S.ACTIVE, failure_reason="first")
    kept = world.in_state(S.ACTIVE, failure_reason="first")
    claimed = release(world, lease, holder_id=other.id, failure_reason="second", outcome=LeaseOutcome.FAILED)
    assert (claimed.holder_id, claimed.failure_reason, claimed.outcome) == (other.id, "second", LeaseOutcome.FAILED)
    assert release(world, kept, epoch=None).failure_reason == "first"


@pytest.mark.parametrize("outcome", list(LeaseOutcome))
def test_a_proven_release_ends_as_its_claim_said(world: Any, outcome: LeaseOutcome) -> None:
    lease = world.do(leases.complete_release, world.claimed(outcome=outcome), state=ResourceState.GONE, handle=None)
    assert (lease.status.value, lease.cleanup_status) == (outcome.value, CleanupStatus.SUCCESS)
    assert lease.ended_at is not None


@pytest.mark.parametrize(
    ("policy", "outcome", "retained_for"),
    [
        (LeasePolicy.REUSE_BY_ENVIRONMENT, LeaseOutcome.RELEASED, "reuse"),
        (LeasePolicy.REUSE_BY_EXECUTION_WORKSPACE, LeaseOutcome.RELEASED, "reuse"),
        (LeasePolicy.REUSE_BY_ENVIRONMENT, LeaseOutcome.FAILED, "inspection"),
        (LeasePolicy.RETAIN_ON_FAILURE, LeaseOutcome.FAILED, "inspection"),
    ],
)
def test_a_kept_place_says_what_for(world: Any, policy: LeasePolicy, outcome: LeaseOutcome, retained_for: str) -> None:
    lease = release(world, world.active(policy=policy), disposition=Disposition.STOP, outcome=outcome)
    kept = world.do(leases.complete_release, lease, state=ResourceState.STOPPED, handle=None)
    assert (kept.status, kept.retained_for, kept.handle) == (S.RETAINED, retained_for, {"v": 1})


def test_a_place_that_should_be_destroyed_and_is_there_is_not_retained(world: Any) -> None:
    lease = world.claimed(Disposition.DESTROY)
    with pytest.raises(LeaseLost):
        world.do(leases.complete_release, lease, state=ResourceState.RUNNING, handle=None)
    assert world.get(lease).status is S.RELEASING


def test_an_unproven_release_waits_for_cleanup_and_keeps_its_outcome(world: Any, soon: datetime) -> None:
    lease = world.do(leases.release_unproven, world.claimed(), error="timeout", next_try_at=soon)
    assert (lease.status, lease.cleanup_status, lease.outcome) == (
        S.PENDING_CLEANUP,
        CleanupStatus.PENDING,
        LeaseOutcome.RELEASED,
    )
    assert (lease.last_error, lease.next_try_at) == ("timeout", soon)
    assert world.do(leases.due_for_cleanup) == []


def test_clean_up_is_claimed_only_when_it_is_due_or_forced(world: Any, soon: datetime) -> None:
    claim = {"holder_id": world.holder.id, "next_try_at": soon}
    for column in ("next_try_at", "not_before"):
        later = world.in_state(S.PENDING_CLEANUP, **{column: soon})
        with pytest.raises(LeaseLost):
            world.do(leases.claim_cleanup, later, **claim)
        assert world.do(leases.claim_cleanup, later, force=True, **claim).attempts == 1
    due = world.in_state(S.PENDING_CLEANUP, next_try_at=now() - timedelta(seconds=1))
    assert world.do(leases.due_for_cleanup) == [due]
    assert world.do(leases.claim_cleanup, due, **claim).next_try_at == soon


def test_a_second_sweeper_with_the_same_snapshot_loses(world: Any, soon: datetime) -> None:
    pending = world.in_state(S.PENDING_CLEANUP)
    claim = {"holder_id": world.holder.id, "next_try_at": now(), "force": True}
    first = world.do(leases.claim_cleanup, pending, **claim)
    with pytest.raises(LeaseLost, match="attempt 1"):
        world.do(leases.claim_cleanup, pending, **claim)
    second = world.do(leases.claim_cleanup, first, **claim)
    with pytest.raises(LeaseLost):
        world.do(leases.cleanup_failed, first, "too late")
    failed = world.do(leases.cleanup_failed, second, "still there")
    assert (failed.cleanup_status, failed.last_error, failed.attempts) == (CleanupStatus.FAILED, "still there", 2)


def test_absence_before_a_late_create_must_have_landed_proves_nothing(world: Any, soon: datetime) -> None:
    pending = world.in_state(S.PENDING_CLEANUP, not_before=soon)
    lease = world.do(leases.cleanup_succeeded, pending)
    assert (lease.status, lease.cleanup_status, lease.next_try_at, lease.ended_at) == (
        S.PENDING_CLEANUP,
        CleanupStatus.PENDING,
        soon,
        None,
    )


def test_a_proven_clean_up_ends_the_lease(world: Any) -> None:
    lease = world.do(leases.cleanup_succeeded, world.in_state(S.PENDING_CLEANUP, not_before=now(), attempts=3))
    assert (lease.status, lease.cleanup_status, lease.attempts) == (S.RELEASED, CleanupStatus.SUCCESS, 3)
    assert lease.ended_at is not None


def test_a_takeover_fences_first_and_keeps_what_the_rows_know(world: Any, make_holder: Any) -> None:
    other = world.do(holders.register, make_holder("holder-2"))
    acquiring, active = world.intent(), world.active()
    releasing = world.in_state(S.RELEASING, outcome=LeaseOutcome.EXPIRED, failure_reason="cancelled")
    foreign = world.active(holder_id=other.id)
    taken = {lease.id: lease for lease in world.do(leases.take_over, world.holder.id, reason="holder died")}
    assert set(taken) == {acquiring.id, active.id, releasing.id}
    assert taken[acquiring.id].not_before > now()
    assert taken[active.id].not_before is None
    assert (taken[active.id].outcome, taken[active.id].failure_reason) == (LeaseOutcome.FAILED, "holder died")
    assert (taken[releasing.id].outcome, taken[releasing.id].failure_reason) == (LeaseOutcome.EXPIRED, "cancelled")
    assert world.get(foreign) == foreign
    assert world.do(holders.beat, world.holder.id) is False
    for late in (acquiring, active, releasing):
        with pytest.raises(LeaseLost):
            world.do(leases.merge_metadata, late, {"x": 1})
    assert world.do(leases.take_over, world.holder.id, reason="again") == []


def test_supersede_continues_the_chain_in_one_step(world: Any) -> None:
    kept = world.in_state(S.RETAINED, retained_for="reuse", handle={"v": 1}, provision_fingerprint="p", epoch=3)
    lease = world.do(leases.supersede, kept, world.new())
    assert (lease.resource_id, lease.epoch, lease.supersedes) == (kept.resource_id, 4, kept.id)
    assert (lease.status, lease.handle, lease.provision_fingerprint) == (S.ACQUIRING, {"v": 1}, "p")
    assert (world.get(kept).status, world.get(kept).superseded_by) == (S.RELEASED, lease.id)


def test_a_refused_intent_leaves_the_kept_place_alone(world: Any) -> None:
    kept = world.in_state(S.RETAINED)
    world.active(run_id="r")
    with pytest.raises(LeaseExists):
        world.do(leases.supersede, kept, world.new(run_id="r"))
    assert world.get(kept) == kept


def test_leases_are_found_by_what_they_belong_to(world: Any) -> None:
    first, second = world.active(run_id="r"), world.in_state(S.FAILED)
    assert world.do(leases.list_all) == [first, second]
    assert world.do(leases.list_all, "t", run_id="r") == [first]
    assert world.do(leases.list_all, "t2") == []
    assert world.do(leases.list_all, status=S.FAILED) == [second]
    assert world.do(leases.list_all, status=(S.FAILED, S.ACTIVE), limit=1) == [second]
    assert world.do(leases.list_all, environment_id=world.environment.id, limit=9) == [first, second]
    assert world.do(leases.for_run, "t", second.context.run_id) == []
    assert world.do(leases.for_run, "t", second.context.run_id, live_only=False) == [second]
    assert world.do(leases.held_by, world.holder.id) == [first]
    assert world.do(environments.live_leases, world.environment.id) == [first]
    assert world.do(leases.get, "lease_none") is None


def test_active_leases_past_their_lifetime_are_found(world: Any) -> None:
    over = world.active(expires_at=now() - timedelta(seconds=1))
    world.active()
    assert world.do(leases.expired) == [over]


@pytest.mark.parametrize(
    ("status", "counts"),
    [
        (S.WAITING, 0),
        (S.ACQUIRING, 1),
        (S.ACTIVE, 1),
        (S.RELEASING, 1),
        (S.RETAINED, 0),
        (S.PENDING_CLEANUP, 1),
        (S.FAILED, 0),
    ],
)
def test_what_takes_up_capacity(world: Any, status: LeaseStatus, counts: int) -> None:
    lease = world.in_state(status)
    assert world.do(leases.count_occupying, world.environment.id) == counts
    if status is S.PENDING_CLEANUP:
        world.do(leases.cleanup_failed, lease, "e")
        assert world.do(leases.count_occupying, world.environment.id) == 0


def test_transitions_use_the_stores_clock(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    then = datetime(2031, 1, 2, 3, 4, 5, tzinfo=UTC)
    monkeypatch.setattr(clock, "now", lambda conn: then)
    assert world.intent().created_at == then
    assert world.active().acquired_at == then


def test_a_lost_lease_says_why(world: Any) -> None:
    lease = world.active()
    with pytest.raises(LeaseLost, match="there is no such lease"):
        world.do(leases.extend, attrs.evolve(lease, id="lease_gone"), now())
    with pytest.raises(LeaseLost, match="it is active"):
        world.do(leases.retire, lease, "x")


def test_handles_and_configs_with_nan_are_refused_and_nothing_is_stored(world: Any) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        world.intent(config={"x": float("nan")})
    lease = world.active()
    with pytest.raises(ValueError, match="Out of range float"):
        world.do(leases.set_handle, lease, {"x": float("inf")})
    with pytest.raises(ValueError, match="naive"):
        world.do(leases.extend, lease, datetime(2030, 1, 1))
    with pytest.raises(TypeError, match="is not JSON"):
        world.do(leases.merge_metadata, lease, {"x": b"bytes"})
    assert world.get(lease) == lease
