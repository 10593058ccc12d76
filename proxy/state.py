"""The replica's directory: identity, last good state, one writer per spool.

    <state dir>/replica-id          stable over restarts
    <state dir>/revision.json       last good RevisionEnvelope, secrets still encrypted
    <state dir>/policies.json       last good policies as a full PolicyFeed
    <state dir>/rejected.json       last revision that could not be built, with its reason
    <state dir>/spool/<owner>/      see spool.py
    /dev/shm/gateway-<…>/           metrics of the running workers; where there is no shared
                                    memory, <state dir>/metrics/

Files are replaced whole (temporary file, fsync, rename), so a reader sees the old or the
new content, never a part of either.
"""

import hashlib
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # a directory of our own in it, see `prepare`


class StateDirectory:
    """Reads and atomically replaces the JSON files of one replica."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.spool = root / "spool"
        self.metrics = _metrics_place(root)

    def prepare(self) -> None:
        """Create the directories, readable by the owner alone."""
        for directory in (self.root, self.spool, self.metrics):
            directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        if self.metrics.is_symlink() or self.metrics.stat().st_uid != os.getuid():
            raise OSError(f"{self.metrics} belongs to somebody else: remove it")

    def forget_metrics(self) -> None:
        """No worker is left that writes them."""
        shutil.rmtree(self.metrics, ignore_errors=True)

    def replica_id(self) -> str:
        """Identity of this replica; made once and kept."""
        path = self.root / "replica-id"
        try:
            known = path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            known = ""
        if not known:
            known = str(uuid.uuid4())
            write_atomically(path, known.encode())
        return known

    def read(self, name: str) -> Any | None:
        """Content of a JSON file, or None when it is absent or torn."""
        try:
            return json.loads((self.root / name).read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    def write(self, name: str, document: object) -> None:
        """Replace a JSON file; raises OSError (disk full) and leaves the old one."""
        write_atomically(self.root / name, json.dumps(document, separators=(",", ":")).encode())


def _metrics_place(root: Path) -> Path:
    """Memory rather than a disk: the files are mapped, and writing to a mapped file of a full
    disk ends a process without a word.
    """
    if not os.access(SHARED_MEMORY, os.W_OK):
        return root / "metrics"
    name = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    return SHARED_MEMORY / f"gateway-{os.getuid()}-{name}"


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside the target, flush to the disk, rename over it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
