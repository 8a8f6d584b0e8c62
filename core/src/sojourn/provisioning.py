"""Run a workspace's set-up and teardown commands by a login shell, and say in one line what went wrong."""

from __future__ import annotations

import hashlib
import re

import attrs

from sojourn import wire
from sojourn.commands import CommandSpec, prepare, run_command
from sojourn.models import ExecuteResult, Outcome
from sojourn.realization_records import ProvisionRecord
from sojourn.records import Lease
from sojourn.runtime import HeldLease, Runtime

__all__ = ["ProvisionFailed", "failure_detail", "provision", "provision_fingerprint", "shell_argv"]

TAIL_BYTES = 4096
LINE_CHARS = 1000

_LOGIN_SHELL = (
    'if s=$(command -v bash); then SHELL=$s; export SHELL; exec bash -lc "$1"; fi; '
    's=$(command -v sh); SHELL=$s; export SHELL; exec sh -lc "$1"'
)


class ProvisionFailed(Exception):
    """The command did not succeed; the text is the detail, possibly empty."""

    def __init__(self, detail: str, record: ProvisionRecord) -> None:
        super().__init__(detail)
        self.detail = detail
        self.record = record


def shell_argv(command: str) -> tuple[str, ...]:
    """Return how ``command`` is run: ``bash -lc``, or ``sh -lc`` where there is no bash, with SHELL set to it."""
    return ("sh", "-c", _LOGIN_SHELL, "sh", command)


def provision_fingerprint(command: str, lease: Lease) -> str:
    """Name what was provisioned, so that the same place is not provisioned twice for the same command."""
    facts = {"command": command, "resource_id": lease.resource_id, "fingerprint": lease.fingerprint}
    return hashlib.sha256(wire.plain_json_bytes(facts)).hexdigest()[:32]


async def provision(runtime: Runtime, held: HeldLease, command: str) -> ProvisionRecord:
    """Run the provision command in the realized workspace, unless this place had it already.

    Raises:
        ProvisionFailed: exit status, time-out, or the command could not be run.
    """
    fingerprint = provision_fingerprint(command, held.lease)
    if held.lease.provision_fingerprint == fingerprint:
        return ProvisionRecord(ran=False, reason="this place was provisioned with the same command before")
    timeout = runtime.timeout_of(held.lease, "provision")
    result = await shell(runtime, held, command, timeout)
    record = ProvisionRecord(
        ran=True,
        fingerprint=fingerprint,
        exit_code=result.exit_code,
        duration_seconds=result.duration.total_seconds(),
        output_tail=_tail(result),
    )
    if not result.ok:
        raise ProvisionFailed(failure_detail("provision", result), record)
    return record


async def shell(
    runtime: Runtime, held: HeldLease, command: str, timeout_seconds: float, *, closing: bool = False
) -> ExecuteResult:
    """Run a shell command in the realized workspace; with ``closing`` as a part of the release.

    The output is for records, so the secrets that the command printed are replaced in it.
    """
    spec = CommandSpec(
        argv=shell_argv(command),
        timeout_seconds=timeout_seconds,
        # More than is recorded: where the middle is cut out, half a secret may stand, and nobody would know it.
        output_limit_bytes=4 * TAIL_BYTES,
        closing=closing,
    )
    execution = await prepare(runtime, held, spec)
    result = await run_command(runtime, held, execution, spec)
    redactor = execution.redactor
    return attrs.evolve(
        result,
        stdout=redactor.output(result.stdout),
        stderr=redactor.output(result.stderr),
        detail=None if result.detail is None else redactor.text(result.detail),
    )


def failure_detail(what: str, result: ExecuteResult) -> str:
    """Return one line on why a command failed: the time-out, else exit code, signal and the first line that it wrote."""
    if result.outcome is Outcome.TIMED_OUT:
        return f"{what} command timed out"
    code = "null" if result.exit_code is None else str(result.exit_code)
    signal = f" (signal {result.signal.strip()})" if result.signal and result.signal.strip() else ""
    line = _first_line(result.stderr) or _first_line(result.stdout) or (result.detail or "")
    return f"exit code {code}{signal}" + (f": {line}" if line else "")


def _first_line(output: bytes) -> str:
    lines = (line.strip() for line in re.split(r"\r?\n", output.decode("utf-8", "replace")))
    return next((line[:LINE_CHARS] for line in lines if line), "")


def _tail(result: ExecuteResult) -> str:
    both = (
        result.stdout[-TAIL_BYTES:] + (b"\n" if result.stdout and result.stderr else b"") + result.stderr[-TAIL_BYTES:]
    )
    return both[-TAIL_BYTES:].decode("utf-8", "replace").replace("\0", "")
