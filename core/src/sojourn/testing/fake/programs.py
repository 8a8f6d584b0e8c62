"""The programs that a fake resource has without being given any; each is an `async def` over its `FakeCommand`."""

from __future__ import annotations

import asyncio
import shlex

from sojourn.testing.fake.world import FakeCommand, FakeProgram

__all__ = ["BUILT_IN"]

PIECE_BYTES = 64 * 1024


async def _exit(command: FakeCommand) -> int:
    return int(command.argv[1])


async def _true(_: FakeCommand) -> int:
    return 0


async def _false(_: FakeCommand) -> int:
    return 1


async def _echo(command: FakeCommand) -> int:
    await command.write("stdout", " ".join(command.argv[1:]).encode() + b"\n")
    return 0


async def _say(command: FakeCommand) -> int:
    """Write the first argument to stdout and the second to stderr, as they are."""
    for stream, text in zip(("stdout", "stderr"), command.argv[1:], strict=False):
        await command.write(stream, text.encode("utf-8", "surrogateescape"))  # type: ignore[arg-type]
    return 0


async def _bytes(command: FakeCommand) -> int:
    await command.write("stdout", bytes.fromhex(command.argv[1]))
    return 0


async def _args(command: FakeCommand) -> int:
    await command.write(
        "stdout", b"".join(word.encode("utf-8", "surrogateescape") + b"\0" for word in command.argv[1:])
    )
    return 0


async def _count(command: FakeCommand) -> int:
    """Write the numbers from 1 to the argument to both streams, one a line."""
    for number in range(1, int(command.argv[1]) + 1):
        await command.write("stdout", f"{number}\n".encode())
        await command.write("stderr", f"{number}\n".encode())
    return 0


async def _cat(command: FakeCommand) -> int:
    for path in command.argv[1:]:
        if path not in command.resource.files:
            await command.write("stderr", f"cat: {path}: no such file\n".encode())
            return 1
        await command.write("stdout", command.resource.files[path])
    if len(command.argv) == 1:
        async for piece in command.stdin:
            await command.write("stdout", piece)
    return 0


async def _greet(command: FakeCommand) -> int:
    """Write the argument, then what comes on stdin."""
    await command.write("stdout", command.argv[1].encode())
    async for piece in command.stdin:
        await command.write("stdout", piece)
    return 0


async def _size(command: FakeCommand) -> int:
    total = 0
    async for piece in command.stdin:
        total += len(piece)
    await command.write("stdout", f"{total}\n".encode())
    return 0


async def _printenv(command: FakeCommand) -> int:
    value = command.env.get(command.argv[1])
    if value is None:
        return 1
    await command.write("stdout", value.encode("utf-8", "surrogateescape"))
    return 0


async def _pwd(command: FakeCommand) -> int:
    await command.write("stdout", command.cwd.encode() + b"\n")
    return 0


async def _whoami(command: FakeCommand) -> int:
    await command.write("stdout", command.user.encode() + b"\n")
    return 0


async def _sleep(command: FakeCommand) -> int:
    await asyncio.sleep(float(command.argv[1]))
    return 0


async def _ready_sleep(command: FakeCommand) -> int:
    await command.write("stdout", b"ready\n")
    return await _sleep(command)


async def _kill(command: FakeCommand) -> int:
    command.die(command.argv[1])
    return 0


async def _mkdir(command: FakeCommand) -> int:
    command.resource.directories.update(word for word in command.argv[1:] if not word.startswith("-"))
    return 0


async def _append(command: FakeCommand) -> int:
    _, path, text = command.argv
    files = command.resource.files
    files[path] = files.get(path, b"") + text.encode() + b"\n"
    return 0


async def _forever(_: FakeCommand) -> int:
    await asyncio.Event().wait()
    return 0


async def _tree(command: FakeCommand) -> int:
    """Start children that end by TERM and children that do not, then wait for ever."""
    command.spawn(_forever)
    command.spawn(_forever, traps_term=True)
    command.trap_term()
    await command.write("stdout", b"ready\n")
    return await _forever(command)


async def _polite(command: FakeCommand) -> int:
    """End by TERM with status 7, after a word."""
    command.trap_term()
    await command.write("stdout", b"ready\n")
    await command.term.wait()
    await command.write("stdout", b"bye\n")
    return 7


async def _background(command: FakeCommand) -> int:
    """Leave a child that writes after a while, and exit with the given status at once."""
    _, seconds, late, code = command.argv

    async def later(child: FakeCommand) -> int:
        await asyncio.sleep(float(seconds))
        await child.write("stdout", late.encode())
        return 0

    command.spawn(later)
    await command.write("stdout", b"early\n")
    return int(code)


async def _flood(command: FakeCommand) -> int:
    """Write ``first\\n``, a number of zero bytes, ``last\\n``."""
    await command.write("stdout", b"first\n")
    left = int(command.argv[1])
    zeros = bytes(PIECE_BYTES)
    while left > 0:
        await command.write("stdout", zeros[:left])
        left -= PIECE_BYTES
    await command.write("stdout", b"last\n")
    return 0


async def _shell(command: FakeCommand) -> int:
    """Run the one program that the script names; there is no more shell than that."""
    words = tuple(shlex.split(command.argv[2]))
    program = BUILT_IN.get(words[0]) if words else _true
    if program is None:
        await command.write("stderr", f"sh: {words[0]}: not found\n".encode())
        return 127
    command.argv = words
    return await program(command)


BUILT_IN: dict[str, FakeProgram | None] = {
    "append": _append,
    "args": _args,
    "background": _background,
    "bash": _shell,
    "bytes": _bytes,
    "cat": _cat,
    "count": _count,
    "echo": _echo,
    "exit": _exit,
    "false": _false,
    "flood": _flood,
    "greet": _greet,
    "kill": _kill,
    "mkdir": _mkdir,
    "not-executable": None,
    "polite": _polite,
    "printenv": _printenv,
    "pwd": _pwd,
    "ready-sleep": _ready_sleep,
    "say": _say,
    "sh": _shell,
    "size": _size,
    "sleep": _sleep,
    "tree": _tree,
    "true": _true,
    "whoami": _whoami,
}
