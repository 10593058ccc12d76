"""Ends what a supervisor leaves behind that was killed. Standard library only.

The supervisor holds the other end of this process' standard input and reports each child
on it: "+<process id> <signal>" when it started, "-<process id>" when it ended. At the end
of the input nobody else will stop the children that remain: they get their own signal,
newest first, then a grace period, then SIGKILL for their whole process groups. The lock of
the data directory is inherited, so that a new supervisor waits until this is done.
"""

import os
import signal
import sys
import time

GRACE_S = 12.0


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # only the end of the input counts
    children: dict[int, int] = {}
    for line in sys.stdin:
        parts = line[1:].split()
        if line.startswith("+"):
            children[int(parts[0])] = int(parts[1])
        else:
            children.pop(int(parts[0]), None)
    end(children)


def end(children: dict[int, int]) -> None:
    remaining = list(reversed(children.items()))
    for process_id, number in remaining:
        _signal(process_id, number)
    deadline = time.monotonic() + GRACE_S
    while remaining and time.monotonic() < deadline:
        time.sleep(0.05)
        remaining = [item for item in remaining if _signal(item[0], 0)]
    for process_id in children:
        _signal(-process_id, signal.SIGKILL)


def _signal(target: int, number: int) -> bool:
    """Whether the process, or with a negative number the group, was there."""
    try:
        os.kill(target, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if __name__ == "__main__":
    main()
