"""Whether a process that is not our child still runs: read from /proc, or asked of `ps`."""

import os
import subprocess
from pathlib import Path

from gateway_admin.supervisor.errors import StartError

PROC = Path("/proc")
LINUX_NAME_LENGTH = 15  # what the kernel keeps of a program's name


def is_alive(pid: int) -> bool:
    """A zombie is dead: only its parent has not noticed yet."""
    if (state := _linux_state(pid)) is not None:
        return state[1] not in {"Z", ""}
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def runs_program(pid: int, program: str) -> bool:
    """Whether this process lives and runs the program of that name."""
    if (state := _linux_state(pid)) is not None:
        return state[0] == program[:LINUX_NAME_LENGTH] and state[1] not in {"Z", ""}
    try:  # macOS
        done = subprocess.run(
            ["ps", "-o", "comm=", "-p", str(pid)],  # noqa: S607 (the system's ps)
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise StartError(
            f"Whether process {pid} is an earlier {program} cannot be seen: there is neither "
            "/proc nor ps. Install ps."
        ) from error
    return program in done.stdout


def _linux_state(pid: int) -> tuple[str, str] | None:
    """(name, state letter); empty strings when it is gone; None where there is no /proc."""
    if not (PROC / "self/stat").exists():
        return None
    try:
        stat = (PROC / f"{pid}/stat").read_text()  # pid (name) state …
    except (FileNotFoundError, ProcessLookupError):
        return "", ""
    name, _, rest = stat.partition("(")[2].rpartition(")")
    return name, rest.split()[0]
