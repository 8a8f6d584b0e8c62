"""A person at a terminal, and what the tests of several commands look at in the same way."""

from __future__ import annotations

from typing import Any

import pexpect
from test_looking import fits

__all__ = ["Terminal", "fits", "one_line"]


class Terminal:
    """A person at a terminal: waits for a question, answers it."""

    def __init__(self, cli: Any, *arguments: str, **env: str) -> None:
        program, *words = cli.words
        known = cli.env | {"NO_COLOR": "1"} | env
        self.child = pexpect.spawn(
            program, [*words, *arguments], cwd=str(cli.work), env=known, timeout=20, dimensions=(40, 200)
        )
        self.seen = ""

    def sees(self, text: str) -> Terminal:
        self.child.expect_exact(text)
        self.seen += self.child.before.decode() + text
        return self

    def says(self, text: str) -> Terminal:
        self.child.sendline(text)
        return self

    def ends(self, status: int = 0) -> str:
        self.child.expect(pexpect.EOF)
        self.seen += self.child.before.decode()
        self.child.close()
        assert self.child.exitstatus == status, self.seen
        return self.seen


def one_line(done: Any, *parts: str, status: int = 1) -> None:
    text = done.stderr.decode()
    assert (done.returncode, text.count("\n")) == (status, 1), text
    for part in parts:
        assert part in text, text
