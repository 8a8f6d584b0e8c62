"""Entry point of the supervisor process: ``python -I -S launch.py DIRECTORY ORCHESTRATOR_PID GRACE_SECONDS``.

It only finds the package again, so that the supervisor's own modules come from their compiled form.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # At the end of the path: nothing that is installed beside this package can shadow the standard library.
    sys.path.append(__file__.rsplit("/", 2)[0])
    from sojourn_local.supervisor import main

    main(sys.argv[1:])
