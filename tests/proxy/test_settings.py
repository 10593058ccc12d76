"""Settings: one clear line for anything that is wrong."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from proxy.settings import SettingsError, load_settings

ROOT = Path(__file__).resolve().parents[2]
KEY = base64.b64encode(bytes(32)).decode()
GOOD = {
    "GATEWAY_CONTROL_PLANE_URL": "http://127.0.0.1:8000/",
    "GATEWAY_PROXY_ENVIRONMENT": "prod",
    "GATEWAY_FLEET_TOKEN": "token",
    "GATEWAY_FLEET_KEY": KEY,
    "GATEWAY_PROXY_STATE_DIR": "/tmp/x",
}


def test_defaults() -> None:
    settings = load_settings(GOOD)
    assert settings.fleet.control_plane_url == "http://127.0.0.1:8000"
    assert (settings.port, settings.workers, settings.poll_interval_s) == (4000, 1, 2.0)
    assert settings.max_body_bytes == 20 * 1024 * 1024
    assert settings.fleet.redis_url is None


def test_fleet_file(tmp_path: Path) -> None:
    content = {
        "control_plane_url": "https://gateway.example",
        "environment": "dev",
        "fleet_token": "t",
        "fleet_key": KEY,
        "redis_url": "redis://localhost",
    }
    path = tmp_path / "dev.json"
    path.write_text(json.dumps(content))
    found = load_settings({"GATEWAY_FLEET_FILE": str(path), "GATEWAY_PROXY_STATE_DIR": "/tmp/x"})
    assert found.fleet.environment == "dev"
    assert found.fleet.redis_url == "redis://localhost"
    assert "token" not in repr(found.fleet)
    assert KEY not in repr(found)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"GATEWAY_FLEET_TOKEN": ""}, "GATEWAY_FLEET_TOKEN"),
        ({"GATEWAY_FLEET_KEY": "short"}, "GATEWAY_FLEET_KEY"),
        ({"GATEWAY_FLEET_KEY": base64.b64encode(b"x").decode()}, "GATEWAY_FLEET_KEY"),
        ({"GATEWAY_CONTROL_PLANE_URL": "localhost:8000"}, "GATEWAY_CONTROL_PLANE_URL"),
        ({"GATEWAY_PROXY_STATE_DIR": ""}, "GATEWAY_PROXY_STATE_DIR"),
        ({"GATEWAY_PROXY_PORT": "70000"}, "GATEWAY_PROXY_PORT"),
        ({"GATEWAY_PROXY_PORT": "x"}, "GATEWAY_PROXY_PORT"),
        ({"GATEWAY_PROXY_WORKERS": "0"}, "GATEWAY_PROXY_WORKERS"),
        ({"GATEWAY_POLL_INTERVAL_S": "-1"}, "GATEWAY_POLL_INTERVAL_S"),
        ({"GATEWAY_ABORT_DRAIN_S": "nan"}, "GATEWAY_ABORT_DRAIN_S"),
        ({"GATEWAY_LOG_LEVEL": "LOUD"}, "GATEWAY_LOG_LEVEL"),
        ({"GATEWAY_COUNTER_TIMEOUT_S": "0"}, "GATEWAY_COUNTER_TIMEOUT_S"),
        ({"REDIS_URL": "localhost:6379"}, "REDIS_URL"),
        ({"GATEWAY_FLEET_FILE": "/nowhere.json"}, "GATEWAY_FLEET_FILE"),
    ],
)
def test_wrong_setting_is_named(change: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        load_settings(GOOD | change)


def launch(**environ: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "proxy.launch"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]} | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_launcher_says_one_line() -> None:
    ended = launch()
    assert ended.returncode == 2
    assert ended.stderr.startswith("proxy: GATEWAY_PROXY_STATE_DIR is not set")
    assert ended.stderr.count("\n") == 1


def test_occupied_port_and_state_directory(tmp_path: Path, gateway: Any) -> None:
    port = str(gateway.replica.port)
    good = GOOD | {"GATEWAY_PROXY_STATE_DIR": str(tmp_path), "GATEWAY_PROXY_PORT": port}
    occupied = launch(**good)
    assert occupied.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in occupied.stderr
    assert occupied.stderr.count("\n") == 1
    shared = launch(**good | {"GATEWAY_PROXY_STATE_DIR": str(gateway.replica.state_dir)})
    assert "another proxy already uses" in shared.stderr
