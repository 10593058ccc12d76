"""Environment variables -> one frozen dataclass. Anything wrong is one clear line at start."""

import base64
import binascii
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

FLEET_KEY_BYTES = 32


class SettingsError(Exception):
    """A setting is missing or unusable; the message names it and says what to set."""


@dataclass(frozen=True, slots=True)
class FleetIdentity:
    """Who this replica is to the control plane."""

    control_plane_url: str  # without a trailing slash
    environment: str  # slug
    fleet_token: str
    fleet_key: bytes  # 32 bytes, AES-256
    redis_url: str | None  # None: no bell, polling only

    def __repr__(self) -> str:
        """Never shows the token or the key."""
        return f"FleetIdentity({self.environment!r} at {self.control_plane_url!r})"


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """Everything the data plane takes from its environment."""

    fleet: FleetIdentity
    state_dir: Path
    host: str
    port: int
    workers: int
    poll_interval_s: float
    max_body_bytes: int
    abort_drain_s: float  # how long an abandoned stream is read on for its true usage
    shutdown_grace_s: float
    spool_max_bytes: int
    counter_timeout_s: float  # a Redis slower than this counts as down
    cache_max_bytes: int  # most that kept answers of the environment may take in Redis
    log_level: str


def load_settings(environ: Mapping[str, str] = os.environ) -> ProxySettings:
    """Read and check all settings, or raise SettingsError."""
    state_dir = environ.get("GATEWAY_PROXY_STATE_DIR")
    if not state_dir:
        raise SettingsError("GATEWAY_PROXY_STATE_DIR is not set: name a directory for the spool")
    return ProxySettings(
        fleet=_load_fleet(environ),
        state_dir=Path(state_dir),
        host=environ.get("GATEWAY_PROXY_HOST") or "127.0.0.1",
        port=_integer(environ, "GATEWAY_PROXY_PORT", 4000, low=0, high=65_535),
        workers=_integer(environ, "GATEWAY_PROXY_WORKERS", 1, low=1, high=256),
        poll_interval_s=_number(environ, "GATEWAY_POLL_INTERVAL_S", 2.0, low=0.05),
        max_body_bytes=_integer(environ, "GATEWAY_MAX_BODY_BYTES", 20 * 1024 * 1024, low=1),
        abort_drain_s=_number(environ, "GATEWAY_ABORT_DRAIN_S", 0.9, low=0.0),
        shutdown_grace_s=_number(environ, "GATEWAY_SHUTDOWN_GRACE_S", 20.0, low=0.0),
        spool_max_bytes=_integer(environ, "GATEWAY_SPOOL_MAX_BYTES", 1024**3, low=65_536),
        counter_timeout_s=_number(environ, "GATEWAY_COUNTER_TIMEOUT_S", 0.25, low=0.01),
        cache_max_bytes=_integer(environ, "GATEWAY_CACHE_MAX_BYTES", 256 * 1024 * 1024, low=0),
        log_level=_log_level(environ),
    )


def _load_fleet(environ: Mapping[str, str]) -> FleetIdentity:
    path = environ.get("GATEWAY_FLEET_FILE")
    if path:
        values = _read_fleet_file(path)
        source = f"fleet file {path}"
        names = {name: name for name in ("control_plane_url", "environment")}
        names |= {"fleet_token": "fleet_token", "fleet_key": "fleet_key", "redis_url": "redis_url"}
    else:
        values = dict(environ)
        source = "environment"
        names = {
            "control_plane_url": "GATEWAY_CONTROL_PLANE_URL",
            "environment": "GATEWAY_PROXY_ENVIRONMENT",
            "fleet_token": "GATEWAY_FLEET_TOKEN",
            "fleet_key": "GATEWAY_FLEET_KEY",
            "redis_url": "REDIS_URL",
        }
    found = {part: values.get(name) or "" for part, name in names.items()}
    for part in ("control_plane_url", "environment", "fleet_token", "fleet_key"):
        if not found[part]:
            hint = "" if path else " (or point GATEWAY_FLEET_FILE at the file of the environment)"
            raise SettingsError(f"{names[part]} is not set in the {source}{hint}")
    url = found["control_plane_url"].rstrip("/")
    if urlsplit(url).scheme not in ("http", "https"):
        raise SettingsError(f"{names['control_plane_url']} is not an http(s) address: {url!r}")
    redis_scheme = urlsplit(found["redis_url"]).scheme
    if redis_scheme not in ("", "redis", "rediss", "unix"):
        raise SettingsError(f"{names['redis_url']} is not a redis://, rediss:// or unix:// address")
    return FleetIdentity(
        control_plane_url=url,
        environment=found["environment"],
        fleet_token=found["fleet_token"],
        fleet_key=_fleet_key(found["fleet_key"], names["fleet_key"]),
        redis_url=found["redis_url"] or None,
    )


def _read_fleet_file(path: str) -> dict[str, str]:
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"GATEWAY_FLEET_FILE {path}: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"GATEWAY_FLEET_FILE {path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise SettingsError(f"GATEWAY_FLEET_FILE {path} is not a JSON object")
    return {str(name): str(value) for name, value in values.items() if value is not None}


def _fleet_key(text: str, name: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SettingsError(f"{name} is not base64") from error
    if len(key) != FLEET_KEY_BYTES:
        raise SettingsError(f"{name} has {len(key)} bytes, not {FLEET_KEY_BYTES}")
    return key


def _integer(
    environ: Mapping[str, str], name: str, default: int, *, low: int, high: int | None = None
) -> int:
    text = environ.get(name)
    if not text:
        return default
    try:
        value = int(text)
    except ValueError as error:
        raise SettingsError(f"{name} is not a whole number: {text!r}") from error
    if value < low or (high is not None and value > high):
        bound = f"between {low} and {high}" if high is not None else f"at least {low}"
        raise SettingsError(f"{name} must be {bound}, not {value}")
    return value


def _number(environ: Mapping[str, str], name: str, default: float, *, low: float) -> float:
    text = environ.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError as error:
        raise SettingsError(f"{name} is not a number of seconds: {text!r}") from error
    if not low <= value < 86_400:
        raise SettingsError(f"{name} must be at least {low} and below one day, not {text}")
    return value


def _log_level(environ: Mapping[str, str]) -> str:
    level = (environ.get("GATEWAY_LOG_LEVEL") or "INFO").upper()
    if level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise SettingsError(f"GATEWAY_LOG_LEVEL must be DEBUG, INFO, WARNING or ERROR: {level!r}")
    return level
