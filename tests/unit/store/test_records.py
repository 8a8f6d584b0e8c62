"""Environments, execution workspaces, holders and activity."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from sojourn.errors import EnvironmentRunError, ErrorCode
from sojourn.records import EnvironmentStatus, LeasePolicy, LeaseStatus
from sojourn.secrets import Secret
from sojourn.store import (
    DuplicateName,
    RecordNotFound,
    Store,
    activity,
    environments,
    holders,
    leases,
    schema,
    workspaces,
)


def test_the_local_environment_is_made_once_and_left_as_it_is(store: Store) -> None:
    first = store.run_here(environments.ensure_local, "t")
    assert (first.name, first.driver, first.policy) == ("local", "local", LeasePolicy.EPHEMERAL)
    changed = store.run_here(environments.update, first.id, status=EnvironmentStatus.ARCHIVED, description="mine")
    assert store.run_here(environments.ensure_local, "t") == changed
    assert store.run_here(environments.ensure_local, "t2").id != first.id


def test_the_local_environment_is_made_once_also_by_eight_processes(store: Store, path: Path, processes: Any) -> None:
    program = """
        import asyncio, sys
        from sojourn.store import Store, environments

        async def main():
            store = await Store.open(sys.argv[1])
            print((await store.run(environments.ensure_local, "t")).id)
            await store.close()

        asyncio.run(main())
    """
    assert set(processes(8, program, path)) == {store.run_here(environments.ensure_local, "t").id}


def add(store: Store, name: str = "build", **values: Any) -> Any:
    return store.run_here(environments.insert, **{"tenant": "t", "name": name, "driver": "ssh", "config": {}, **values})


def test_an_environment_reads_back_as_it_was_written(store: Store) -> None:
    values: dict[str, Any] = {
        "config": {"host": "h", "key": {"secret": "env:KEY"}},
        "config_version": 2,
        "env": {"A": "1", "TOKEN": Secret("env:TOKEN", value="hunter2")},
        "policy": LeasePolicy.RETAIN_ON_FAILURE,
        "max_leases": 3,
        "require_probe": True,
        "timeouts": {"acquire": 1.5},
        "description": "d",
    }
    made = add(store, **values)
    found = store.run_here(environments.get, made.id)
    assert found == made == store.run_here(environments.find, "t", "build")
    assert {name: getattr(found, name) for name in values} == values
    assert not found.env["TOKEN"].resolved
    assert found.created_at == found.updated_at


def test_a_name_is_given_once_per_tenant(store: Store) -> None:
    made = add(store)
    with pytest.raises(DuplicateName, match="build"):
        add(store)
    assert add(store, tenant="t2").name == "build"
    other = add(store, "other")
    with pytest.raises(DuplicateName):
        store.run_here(environments.update, other.id, name="build")
    assert store.run_here(environments.get, other.id) == other
    assert store.run_here(environments.find, "t", "build") == made


def test_environments_are_listed_by_name_and_archived_ones_on_request(store: Store) -> None:
    b, a = add(store, "b"), add(store, "a")
    store.run_here(environments.update, b.id, status=EnvironmentStatus.ARCHIVED)
    assert [e.name for e in store.run_here(environments.list_all, "t")] == [a.name]
    assert [e.name for e in store.run_here(environments.list_all, "t", include_archived=True)] == ["a", "b"]
    assert store.run_here(environments.list_all, "t2") == []


def test_an_environments_fields_change_but_not_its_identity(store: Store) -> None:
    made = add(store)
    changed = store.run_here(environments.update, made.id, env={"A": Secret("env:X")}, max_leases=1)
    assert (changed.env, changed.max_leases) == ({"A": Secret("env:X")}, 1)
    assert changed.updated_at >= made.updated_at
    with pytest.raises(TypeError, match="tenant"):
        store.run_here(environments.update, made.id, tenant="t2")
    with pytest.raises(EnvironmentRunError) as caught:
        store.run_here(environments.update, "env_none", name="x")
    assert caught.value.code is ErrorCode.ENVIRONMENT_NOT_FOUND


def test_a_deleted_environment_leaves_its_leases_and_no_default(world: Any) -> None:
    lease = world.active()
    world.do(environments.set_default, "t", world.environment.id)
    world.do(environments.delete, world.environment.id)
    assert world.do(environments.default_id, "t") is None
    assert world.do(environments.get, world.environment.id) is None
    assert world.do(environments.live_leases, world.environment.id) == [lease]


def test_a_tenants_default_is_one_of_its_own(store: Store) -> None:
    assert store.run_here(environments.default_id, "t") is None
    made, foreign = add(store), add(store, tenant="t2")
    store.run_here(environments.set_default, "t", made.id)
    assert store.run_here(environments.default_id, "t") == made.id
    for wrong in (foreign.id, "env_none"):
        with pytest.raises(EnvironmentRunError):
            store.run_here(environments.set_default, "t", wrong)
    store.run_here(environments.set_default, "t", None)
    assert store.run_here(environments.default_id, "t") is None


def test_a_locked_environment_is_the_environment(world: Any) -> None:
    assert world.do(environments.lock, world.environment.id) == world.environment
    assert world.do(environments.lock, "env_none") is None


def test_execution_workspaces_belong_to_a_tenant(store: Store) -> None:
    made = store.run_here(workspaces.insert, tenant="t", mode="shared", metadata={"a": 1}, workspace_id="w")
    assert store.run_here(workspaces.get, "t", "w") == made
    assert store.run_here(workspaces.get, "t2", "w") is None
    with pytest.raises(DuplicateName):
        store.run_here(workspaces.insert, tenant="t", workspace_id="w")
    other = store.run_here(workspaces.insert, tenant="t2", workspace_id="w")
    assert store.run_here(workspaces.list_all, "t2") == [other]
    assert store.run_here(workspaces.insert, tenant="t").id.startswith("ews_")


def test_an_execution_workspaces_metadata_is_merged(store: Store) -> None:
    store.run_here(workspaces.insert, tenant="t", metadata={"a": 1, "b": 1}, workspace_id="w")
    assert store.run_here(workspaces.merge_metadata, "t", "w", {"b": 2, "c": None}).metadata == {
        "a": 1,
        "b": 2,
        "c": None,
    }
    changed = store.run_here(workspaces.update, "t", "w", mode="m", status=EnvironmentStatus.ARCHIVED)
    assert (changed.mode, changed.status) == ("m", EnvironmentStatus.ARCHIVED)
    for call in (workspaces.merge_metadata, lambda conn, *a: workspaces.update(conn, a[0], a[1], **a[2])):
        with pytest.raises(RecordNotFound):
            store.run_here(call, "t", "none", {})
    with pytest.raises(TypeError):
        store.run_here(workspaces.update, "t", "w", id="x")


def test_a_fenced_holder_is_fenced_for_ever(store: Store, make_holder: Any) -> None:
    holder = store.run_here(holders.register, make_holder("h"))
    assert store.run_here(holders.get, "h") == holder
    with pytest.raises(DuplicateName):
        store.run_here(holders.register, holder)
    assert store.run_here(holders.beat, "h")
    assert store.run_here(holders.get, "h").beat_at >= holder.beat_at
    assert store.run_here(holders.fence, "h")
    assert not store.run_here(holders.fence, "h")
    assert not store.run_here(holders.beat, "h")
    assert not store.run_here(holders.beat, "none")
    assert [found.id for found in store.run_here(holders.list_all)] == ["h"]


@pytest.mark.parametrize("status", list(LeaseStatus))
def test_a_holder_is_removed_only_when_it_answers_for_no_lease(world: Any, status: LeaseStatus) -> None:
    world.in_state(status)
    assert world.do(holders.remove, world.holder.id) is (status not in schema.HELD)
    assert (world.do(holders.get, world.holder.id) is None) is (status not in schema.HELD)


EVENT: dict[str, Any] = {
    "tenant": "t",
    "actor_type": "agent",
    "actor_id": "a",
    "agent_id": "a",
    "run_id": "r",
    "action": "environment.lease_acquired",
    "entity_type": "lease",
    "entity_id": "lease_1",
    "details": {"driver": "local"},
}


def test_activity_is_listed_in_order(store: Store) -> None:
    made = [store.run_here(activity.record, **{**EVENT, "entity_id": f"e{n % 2}"}) for n in range(4)]
    store.run_here(activity.record, **{**EVENT, "tenant": "t2"})
    assert store.run_here(activity.list_all, "t") == made
    assert store.run_here(activity.list_all, "t", after_id=made[1].id) == made[2:]
    assert store.run_here(activity.list_all, "t", entity_id="e1") == [made[1], made[3]]
    assert store.run_here(activity.list_all, "t", limit=2) == made[:2]
    assert store.run_here(activity.list_all, "t", limit=2, newest=True) == made[2:]
    assert made[0].details == {"driver": "local"}


@pytest.mark.parametrize("wrong", [{"details": {"x": float("nan")}}, {"action": None}, {"details": {"x": object()}}])
def test_a_failed_record_leaves_the_transition_standing(
    world: Any, wrong: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    before = activity.failures()

    def step(conn: Any) -> Any:
        lease = leases.insert_intent(conn, world.new())
        recorded = activity.record(conn, **{**EVENT, "entity_id": lease.id, **wrong})
        after = activity.record(conn, **EVENT)
        return lease, recorded, after

    with caplog.at_level(logging.ERROR, "sojourn.store"):
        lease, recorded, after = world.do(step)
    assert recorded is None
    assert world.get(lease) == lease
    assert world.do(activity.list_all, "t") == [after]
    assert activity.failures() == before + 1
    assert [(entry.name, entry.entity_id) for entry in caplog.records] == [("sojourn.store", lease.id)]


def test_activity_that_the_database_refuses_leaves_the_transition_standing(world: Any) -> None:
    world.do(lambda conn: conn.execute(sa.text("DROP TABLE activity")))

    def step(conn: Any) -> Any:
        lease = leases.insert_intent(conn, world.new())
        assert activity.record(conn, **EVENT) is None
        return lease

    lease = world.do(step)
    assert world.get(lease) == lease


def test_activity_of_a_transaction_that_fails_is_gone_with_it(store: Store) -> None:
    def step(conn: Any) -> None:
        assert activity.record(conn, **EVENT)
        raise LookupError

    with pytest.raises(LookupError):
        store.run_here(step)
    assert store.run_here(activity.list_all, "t") == []


def test_numbers_of_events_are_never_given_out_again(store: Store) -> None:
    first = store.run_here(activity.record, **EVENT)
    store.run_here(lambda conn: conn.execute(schema.activity.delete()))
    assert store.run_here(activity.record, **EVENT).id > first.id


def test_of_two_adders_of_one_name_one_wins(store: Store) -> None:
    results: list[str] = []

    def work() -> None:
        try:
            add(store)
            results.append("added")
        except DuplicateName:
            results.append("refused")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["added", "refused", "refused", "refused"]
