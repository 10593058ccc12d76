"""The account that embedded PostgreSQL runs as. It refuses to run as root.

As an ordinary user everything runs as that user. As root, PostgreSQL runs as the account
`postgres` where there is one, else `nobody`, through util-linux' `setpriv`, which replaces
itself by the server: the process id stays that of the child.
"""

import os
import pwd
import shutil
from dataclasses import dataclass
from pathlib import Path

from gateway_admin.supervisor.errors import StartError

SEARCH = 0o1
CAPABILITIES = {1: "dac_override", 2: "dac_read_search"}  # linux/capability.h


@dataclass(frozen=True)
class ServiceAccount:
    """`uid` None: the present user."""

    uid: int | None = None
    gid: int | None = None

    @classmethod
    def for_directory(cls, directory: Path) -> "ServiceAccount":
        """The owner of an existing data directory, else the first suitable account."""
        if os.geteuid() != 0:
            return cls()
        if directory.exists() and (owner := directory.stat()).st_uid != 0:
            return cls(owner.st_uid, owner.st_gid)
        for name in ("postgres", "nobody"):
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            return cls(entry.pw_uid, entry.pw_gid)
        raise StartError(
            "PostgreSQL does not run as root and there is no account postgres or nobody: "
            "start as another user, or set DATABASE_URL."
        )

    def own(self, path: Path) -> None:
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def wrap(self, command: list[str], *, reaching: list[Path]) -> list[str]:
        """The command as this account, able to reach the given paths."""
        if self.uid is None:
            return command
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise StartError(
                "Running as root needs setpriv (Debian package util-linux): install it, "
                "start as another user, or set DATABASE_URL."
            )
        wrapped = [setpriv, f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"]
        closed = [path for path in reaching if not self.reaches(path)]
        if closed:
            # A checkout below /root (mode 0700): lend the right to pass through directories
            # rather than opening somebody's home to all accounts.
            capability = _lendable_capability(closed[0])
            wrapped += [f"--inh-caps=+{capability}", f"--ambient-caps=+{capability}"]
        return [*wrapped, "--", *command]

    def reaches(self, path: Path) -> bool:
        """Whether the account may pass through every directory above the path."""
        return self.uid is None or all(
            self._may_search(parent) for parent in path.resolve().parents
        )

    def _may_search(self, directory: Path) -> bool:
        entry = directory.stat()
        if entry.st_uid == self.uid:
            return bool(entry.st_mode & (SEARCH << 6))
        if entry.st_gid == self.gid:
            return bool(entry.st_mode & (SEARCH << 3))
        return bool(entry.st_mode & SEARCH)


def _lendable_capability(path: Path) -> str:
    """The weaker one that this process may hand on."""
    lines = Path("/proc/self/status").read_text().splitlines()
    bounding = next(int(line.split()[1], 16) for line in lines if line.startswith("CapBnd:"))
    for bit in (2, 1):
        if bounding & (1 << bit):
            return CAPABILITIES[bit]
    raise StartError(
        f"The account of PostgreSQL cannot reach {path}: move GATEWAY_DATA_DIR and the "
        "checkout to a place that other accounts may pass through, or set DATABASE_URL."
    )
