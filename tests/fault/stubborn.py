"""A command that does not want to end: a process out of its session, forked twice, deaf to TERM, one without its environment."""

from __future__ import annotations

import os
import signal
import sys
import time

ledger, folder, marker, name = sys.argv[1:]
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
with open(ledger, "a") as file:
    file.write(f"{name}\n")

ready, child_ready = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(child_ready, b".")
        time.sleep(1000)
    if os.fork() == 0:
        os.write(child_ready, b".")
        for descriptor in (ready, child_ready):
            os.close(descriptor)
        sleep = "import time; time.sleep(1000)"
        os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", sleep, marker], {})
    os._exit(0)

told = 0
while told < 2:
    told += len(os.read(ready, 2))
with open(f"{folder}/started/{name}", "w"):
    pass
time.sleep(1000)
