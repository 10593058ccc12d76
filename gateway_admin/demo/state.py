"""What the demonstration keeps in the data directory: its keys, passwords and port."""

import json
import os
from pathlib import Path
from typing import Any, TypedDict

from gateway_admin.lib.embedded_state import free_port, is_free

FOLDER = "demo"
SIMULATOR_FILE = "simulator.json"
KEYS_FILE = "keys.json"


class StoredKey(TypedDict):
    name: str
    environment: str
    secret: str


class StoredLogin(TypedDict):
    email: str
    password: str
    role: str


class Stored(TypedDict):
    """`keys.json`, mode 0600: virtual keys and passwords in clear, of invented people only."""

    keys: list[StoredKey]
    logins: list[StoredLogin]


def folder(data_dir: Path) -> Path:
    return data_dir / FOLDER


def keys_file(data_dir: Path) -> Path:
    return folder(data_dir) / KEYS_FILE


def stored_read(data_dir: Path) -> Stored | None:
    """None when there is no demonstration, or its file is gone."""
    try:
        stored: Stored = json.loads(keys_file(data_dir).read_text())
    except FileNotFoundError:
        return None
    return stored


def stored_write(data_dir: Path, stored: Stored) -> None:
    _write(keys_file(data_dir), stored)


def stored_delete(data_dir: Path) -> None:
    keys_file(data_dir).unlink(missing_ok=True)


def simulator_port(data_dir: Path) -> int:
    """The simulator's port: kept from one start to the next unless somebody else took it."""
    path = folder(data_dir) / SIMULATOR_FILE
    try:
        port = int(json.loads(path.read_text())["port"])
    except FileNotFoundError:
        port = 0
    if not port or not is_free(port):
        port = free_port()
        _write(path, {"port": port})
    return port


def simulator_url(data_dir: Path) -> str:
    """Where the simulator listens, or will once it is started."""
    path = folder(data_dir) / SIMULATOR_FILE
    port = json.loads(path.read_text())["port"] if path.exists() else simulator_port(data_dir)
    return f"http://127.0.0.1:{port}"


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(content, file, indent=1)
    temporary.replace(path)
