"""What this process knows of one lease: its resource, its supervisor, and the commands that ran under which id."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import TYPE_CHECKING

from sojourn import CommandIO, CommandOutcome, ExecuteRequest, InvalidArgument, OutcomeUnknown
from sojourn_local.baseenv import command_env, encoded, find_user
from sojourn_local.failures import SupervisorEnded
from sojourn_local.processes import Command, CommandSpec
from sojourn_local.supervision import Supervision, SupervisorProcess

if TYPE_CHECKING:
    from sojourn_local.resources import Resource

__all__ = ["Lease"]

_REMEMBERED_COMMANDS = 4096
_START_ATTEMPTS = 3


class Lease:
    """One resource in the hands of this process; safe to use from several threads and event loops."""

    def __init__(self, resource: Resource, grace_seconds: float) -> None:
        self.resource = resource
        self.supervision = Supervision(resource.directory, grace_seconds)
        self._lock = threading.Lock()
        self._commands: OrderedDict[str, Future[CommandOutcome]] = OrderedDict()

    async def execute_once(self, request: ExecuteRequest, io: CommandIO) -> CommandOutcome:
        """Run the command, unless its ``exec_id`` did or does run: then give that outcome; its output went to the first caller.

        Raises:
            DriverError: it could not be started, and nothing ran.
            OutcomeUnknown: the first caller of this ``exec_id`` was cancelled, so there is no outcome to give.
        """
        record, is_first = self._record(request.exec_id)
        if not is_first:
            return await asyncio.wrap_future(record)
        spec: CommandSpec | None = None
        command: Command | None = None
        try:
            spec = await _spec(self.resource, request)
            for attempt in range(_START_ATTEMPTS):
                supervisor = await self._supervisor(request.epoch)
                command = Command(spec, io)
                try:
                    outcome = await command.run(supervisor.submit)
                    break
                except SupervisorEnded:
                    supervisor.retire()
                    if attempt + 1 == _START_ATTEMPTS:
                        raise
        except BaseException as error:
            self._failed(request.exec_id, record, error, ran=command is not None and command.ran)
            raise
        record.set_result(outcome)
        return outcome

    def _record(self, exec_id: str) -> tuple[Future[CommandOutcome], bool]:
        with self._lock:
            known = self._commands.get(exec_id)
            if known is not None:
                return known, False
            record: Future[CommandOutcome] = Future()
            # A second caller that is cancelled must not cancel it.
            record.set_running_or_notify_cancel()
            self._commands[exec_id] = record
            self._forget_oldest()
            return record, True

    def _forget_oldest(self) -> None:
        while len(self._commands) > _REMEMBERED_COMMANDS:
            oldest = next((exec_id for exec_id, record in self._commands.items() if record.done()), None)
            if oldest is None:
                return
            del self._commands[oldest]

    def _failed(self, exec_id: str, record: Future[CommandOutcome], error: BaseException, *, ran: bool) -> None:
        if not ran:
            # Nothing happened under this id, so it may be tried again.
            with self._lock:
                del self._commands[exec_id]
        if isinstance(error, Exception):
            record.set_exception(error)
        else:
            record.set_exception(OutcomeUnknown(f"the first caller of command {exec_id} was cancelled"))

    async def _supervisor(self, epoch: int) -> SupervisorProcess:
        living = self.supervision.living()
        return living if living is not None else await asyncio.to_thread(self._start_supervisor, epoch)

    def _start_supervisor(self, epoch: int) -> SupervisorProcess:
        with self.resource.gate(epoch):
            return self.supervision.ensure()


async def _spec(resource: Resource, request: ExecuteRequest) -> CommandSpec:
    """Check the request and turn it into bytes.

    Raises:
        InvalidArgument, PermissionDenied: it cannot be done as asked.
    """
    if not request.argv or not request.argv[0]:
        raise InvalidArgument("argv is empty; it needs at least the program's name")
    cwd = request.cwd
    if cwd is None:
        cwd = str(resource.workspace if resource.workspace.is_dir() else resource.directory)
    if not cwd.startswith("/"):
        raise InvalidArgument(f"working directory {cwd!r} is not absolute")
    # A directory service may take its time to answer.
    user = await asyncio.to_thread(find_user, request.user) if request.user is not None else None
    return CommandSpec(
        argv=[encoded(word, f"argument {index}") for index, word in enumerate(request.argv)],
        cwd=encoded(cwd, "the working directory"),
        env=command_env(request.config, str(resource.directory), resource.resource_id, request.env, user),
        identity=(user.uid, user.gid, user.groups) if user is not None else None,
        timeout_seconds=request.timeout_seconds,
        grace_seconds=request.grace_seconds,
    )
