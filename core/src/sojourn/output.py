"""What is kept of a command's output: all of it up to a limit, then its beginning and its end."""

from __future__ import annotations

from collections import deque

__all__ = ["OutputBuffer"]


class OutputBuffer:
    """Keeps the first and the last half of ``limit_bytes``; what falls out between them is counted.

    Args:
        limit_bytes: how much is kept; 0 keeps nothing.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._head_room = limit_bytes - limit_bytes // 2
        self._tail_limit = limit_bytes // 2
        self._head: list[bytes] = []
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self.dropped_bytes = 0

    def add(self, data: bytes) -> None:
        """Take the next piece of output."""
        if self._head_room:
            head, data = data[: self._head_room], data[self._head_room :]
            self._head.append(head)
            self._head_room -= len(head)
        if data:
            self._tail.append(data)
            self._tail_bytes += len(data)
            self._trim()

    def value(self) -> bytes:
        """Return what is kept."""
        return b"".join((*self._head, *self._tail))

    def _trim(self) -> None:
        while self._tail_bytes > self._tail_limit:
            excess = self._tail_bytes - self._tail_limit
            first = self._tail.popleft()
            dropped = min(excess, len(first))
            if dropped < len(first):
                self._tail.appendleft(first[dropped:])
            self._tail_bytes -= dropped
            self.dropped_bytes += dropped
