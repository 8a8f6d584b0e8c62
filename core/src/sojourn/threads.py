"""A small pool of daemon threads for calls that block.

The pools of the standard library join their threads when the interpreter ends, so one call that hangs would hold the exit.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

__all__ = ["DaemonPool"]

T = TypeVar("T")
_Job = tuple["Future[Any]", Callable[[], Any]]


class DaemonPool:
    """At most ``size`` daemon threads, started when they are needed.

    Args:
        name: of the threads, for debuggers.
        size: how many calls run at once.
    """

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._threads = 0
        self._idle = 0
        self._lock = threading.Lock()
        self._closed = False
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Queue a call; the future gets its answer or its exception, `BaseException` included.

        Raises:
            RuntimeError: after `close`.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError(f"the threads of {self._name} are closed")
            self._jobs.put((future, call))
            if self._idle:
                self._idle -= 1
            elif self._threads < self._size:
                self._threads += 1
                threading.Thread(target=self._work, name=f"{self._name}-{self._threads}", daemon=True).start()
        return future

    def replace_one(self) -> None:
        """Allow one more thread, because one hangs in a call that was given up."""
        with self._lock:
            self._size += 1

    def close(self) -> None:
        """Take no more calls; those queued are still done, then the threads end. Does not wait; may be called again."""
        with self._lock:
            if not self._closed:
                self._closed = True
                for _ in range(self._threads):
                    self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, call = job
            if future.set_running_or_notify_cancel():
                try:
                    answer = call()
                except BaseException as error:  # noqa: BLE001 - belongs to whoever asked, whatever it is
                    future.set_exception(error)
                else:
                    future.set_result(answer)
            del job, future, call
            with self._lock:
                self._idle += 1
