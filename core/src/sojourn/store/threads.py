"""A small executor of daemon threads: those of `concurrent.futures` would hold the interpreter's exit."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

__all__ = ["DaemonExecutor"]

_T = TypeVar("_T")
_Job = tuple["Future[Any]", Callable[[], Any]]


class DaemonExecutor:
    """Runs jobs in order of arrival in ``threads`` daemon threads, which start with the first job.

    Args:
        threads: how many jobs run at a time.
        name: of the threads, for people who read a stack dump.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._work, name=f"{name}-{n}", daemon=True) for n in range(threads)]
        self._lock = threading.Lock()
        self._started = False
        self._closed = False

    def submit(self, job: Callable[[], _T]) -> Future[_T]:
        """Queue a job; its result or whatever it raises comes by the future.

        Raises:
            RuntimeError: after `close`.
        """
        future: Future[_T] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("the executor is closed")
            if not self._started:
                self._started = True
                for thread in self._threads:
                    thread.start()
            self._jobs.put((future, job))
        return future

    def close(self) -> None:
        """Take no more jobs; those queued are still done, then the threads end. Does not wait."""
        with self._lock:
            if not self._closed:
                self._closed = True
                for _ in self._threads:
                    self._jobs.put(None)

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            _perform(*item)
            # The loop's variable would keep the job and its result alive until the next one comes.
            del item


def _perform(future: Future[Any], job: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = job()
    except BaseException as error:  # noqa: BLE001 - the caller gets it; the thread must live on
        future.set_exception(error)
    else:
        future.set_result(result)
