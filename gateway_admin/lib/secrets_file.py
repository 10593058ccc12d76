"""Secrets that development generates once and keeps in one file of the data directory."""

import base64
import json
import os
import secrets
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

_GENERATORS = {
    "GATEWAY_SECRET_KEY": lambda: secrets.token_urlsafe(48),
    "GATEWAY_ENCRYPTION_KEYS": lambda: "k1:" + base64.b64encode(os.urandom(32)).decode(),
    "GATEWAY_KEY_PEPPER": lambda: base64.b64encode(os.urandom(32)).decode(),
}


class SecretsFile:
    """Environment first, then the file; a missing secret is generated only where `allowed`."""

    def __init__(self, path: Path, *, allowed: bool) -> None:
        self.path = path
        self.allowed = allowed

    def get(self, name: str) -> str:
        """Return the secret, or raise ImproperlyConfigured in production."""
        if value := os.environ.get(name):
            return value
        if not self.allowed:
            raise ImproperlyConfigured(
                f"{name} is not set. Production does not start on generated secrets: "
                "see docs/configuration.md for how to make one."
            )
        stored = self._read()
        if name not in stored:
            stored = self._add(name)
        return stored[name]

    def _read(self) -> dict[str, str]:
        try:
            content: dict[str, str] = json.loads(self.path.read_text())
        except FileNotFoundError:
            return {}
        return content

    def _add(self, name: str) -> dict[str, str]:
        """Generate under an exclusive lock: web, worker and supervisor start at once."""
        import fcntl

        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.path.parent / "secrets.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            stored = self._read()
            if name not in stored:
                stored[name] = _GENERATORS[name]()
                temporary = self.path.with_suffix(".new")
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                with os.fdopen(descriptor, "w") as file:
                    json.dump(stored, file, indent=1)
                temporary.replace(self.path)
        return stored
