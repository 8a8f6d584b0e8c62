"""What the contract needs to test the fake driver: its programs by name, and a look at its world without the driver."""

from __future__ import annotations

from sojourn.testing.backdoor import BackDoor
from sojourn.testing.fake.world import FakeWorld
from sojourn.testing.programs import Argv, Programs

__all__ = ["FakeBackDoor", "FakePrograms"]


class FakePrograms(Programs):
    """The built-in programs of the fake driver."""

    def exit(self, code: int) -> Argv:  # noqa: D102 - as `Programs` says, and so for all that follow
        return ("exit", str(code))

    def say(self, out: str, err: str = "") -> Argv:  # noqa: D102
        return ("say", out, err)

    def binary(self, data: bytes) -> Argv:  # noqa: D102
        return ("bytes", data.hex())

    def args(self, *words: str) -> Argv:  # noqa: D102
        return ("args", *words)

    def count(self, lines: int) -> Argv:  # noqa: D102
        return ("count", str(lines))

    def cat(self) -> Argv:  # noqa: D102
        return ("cat",)

    def greet(self, word: str) -> Argv:  # noqa: D102
        return ("greet", word)

    def size(self) -> Argv:  # noqa: D102
        return ("size",)

    def print_env(self, name: str) -> Argv:  # noqa: D102
        return ("printenv", name)

    def pwd(self) -> Argv:  # noqa: D102
        return ("pwd",)

    def whoami(self) -> Argv:  # noqa: D102
        return ("whoami",)

    def sleep(self, seconds: float) -> Argv:  # noqa: D102
        return ("ready-sleep", str(seconds))

    def kill_self(self, name: str) -> Argv:  # noqa: D102
        return ("kill", f"SIG{name}")

    def append(self, path: str, line: str) -> Argv:  # noqa: D102
        return ("append", path, line)

    def read(self, path: str) -> Argv:  # noqa: D102
        return ("cat", path)

    def not_found(self) -> Argv:  # noqa: D102
        return ("no-such-program",)

    def not_executable(self) -> Argv:  # noqa: D102
        return ("not-executable",)

    def flood(self, size: int) -> Argv:  # noqa: D102
        return ("flood", str(size))

    def background(self, seconds: float, late: str, code: int) -> Argv:  # noqa: D102
        return ("background", str(seconds), late, str(code))

    def daemon(self) -> Argv:  # noqa: D102
        return ("background", "300", "never", "0")

    def tree(self) -> Argv:  # noqa: D102
        return ("tree",)

    def polite(self) -> Argv:  # noqa: D102
        return ("polite",)


class FakeBackDoor(BackDoor):
    """Looks into a `FakeWorld`."""

    def __init__(self, world: FakeWorld) -> None:
        self.world = world

    def resource_exists(self, resource_id: str) -> bool:
        """Whether the world has the resource."""
        return resource_id in self.world.resources

    def processes(self, mark: str) -> list[str]:
        """List the processes of the world that carry ``mark``."""
        return [
            " ".join(process.argv)
            for process in self.world.processes()
            if any(mark in text for text in (*process.argv, *process.env.values()))
        ]

    def argv_of_all_processes(self) -> list[bytes]:
        """Return the command line of every process of the world."""
        return [" ".join(process.argv).encode("utf-8", "surrogateescape") for process in self.world.processes()]

    def destroy_resource(self, resource_id: str) -> None:
        """Make the resource vanish."""
        self.world.remove(resource_id)
