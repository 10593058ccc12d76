"""LiteLLM as installed and tuned, and Portkey: how to start them at the mock."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from tests.bench.lanes.answers import UPSTREAM_MODEL
from tests.bench.lanes.machine import process
from tests.proxy.replica import ROOT, free_port

PORTKEY = "@portkey-ai/gateway"
PORTKEY_VERSION = "1.15.2"
INSTALL_MAX_S = 600
# LiteLLM does not start without one.
MASTER_KEY = "sk-bench-" + hashlib.sha256(b"bench").hexdigest()
# `litellm` as its own requirements install it: httptools is one of ours.
_AS_INSTALLED = (
    "import sys; sys.modules['httptools'] = None; from litellm import run_server; run_server()"
)
_TUNED_ENVIRON = {
    "LITELLM_LOG": "ERROR",
    "LITELLM_MODE": "PRODUCTION",
    "NO_DOCS": "True",
    "NO_REDOC": "True",
    "NO_OPENAPI": "True",
    "DISABLE_ADMIN_UI": "True",
}


def _environ(**more: str) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GATEWAY_", "REDIS_", "LITELLM_")) and name != "DATABASE_URL"
    }
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    # Neither asks the network for anything while it is measured.
    kept |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": MASTER_KEY}
    return kept | more


def _config(home: Path, provider: str, name: str, latencies: tuple[int, ...]) -> Path:
    models = [
        {
            "model_name": f"{name}-{ms}",
            "litellm_params": {
                "model": f"openai/{UPSTREAM_MODEL}",
                "api_base": f"{provider}/{name}/{ms}/v1",
                "api_key": "sk-mock",
            },
        }
        for ms in latencies
    ]
    path = home / f"{name}.yaml"
    path.write_text(
        yaml.safe_dump({"model_list": models, "litellm_settings": {"telemetry": False}})
    )
    return path


@contextlib.contextmanager
def litellm(
    provider: str, home: Path, latencies: tuple[int, ...], *, cores: frozenset[int]
) -> Iterator[tuple[int, int]]:
    """LiteLLM's own command; gives port and pid."""
    config, port = _config(home, provider, "litellm", latencies), free_port()
    command = [sys.executable, "-c", _AS_INSTALLED, "--config", str(config)]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with process(command, home / "litellm.log", cores=cores, environ=_environ(), port=port) as pid:
        yield port, pid


@contextlib.contextmanager
def tuned(
    provider: str, home: Path, latencies: tuple[int, ...], *, cores: frozenset[int]
) -> Iterator[tuple[int, int]]:
    """LiteLLM with the settings that pay; gives port and pid."""
    config, port = _config(home, provider, "tuned", latencies), free_port()
    environ = _environ(**_TUNED_ENVIRON, CONFIG_FILE_PATH=str(config), PYTHONPATH=str(ROOT))
    command = [sys.executable, "-m", "tests.bench.lanes.tuned", str(port)]
    with process(command, home / "tuned.log", cores=cores, environ=environ, port=port) as pid:
        yield port, pid


@contextlib.contextmanager
def portkey(home: Path, folder: Path, *, cores: frozenset[int]) -> Iterator[tuple[int, int]]:
    """Portkey's gateway; gives port and pid."""
    script = folder / "node_modules" / PORTKEY / "build" / "start-server.js"
    port = free_port()
    command = ["node", str(script), f"--port={port}", "--headless"]
    environ = _environ(NODE_ENV="production")
    with process(command, home / "portkey.log", cores=cores, environ=environ, port=port) as pid:
        yield port, pid


def install_portkey() -> Path | str:
    """The folder where Portkey is installed, outside of the project, or why it is not."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        return "npm is not installed (apt-get install npm)"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "gateway-admin-bench" / f"portkey-{PORTKEY_VERSION}"
    if (folder / "node_modules" / PORTKEY / "package.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    command = ["npm", "install", "--prefix", str(folder), "--ignore-scripts", "--no-audit"]
    command += ["--no-fund", "--omit=dev", f"{PORTKEY}@{PORTKEY_VERSION}"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_MAX_S, check=False
        )
    except subprocess.TimeoutExpired:
        return "npm did not finish"
    return folder if done.returncode == 0 else f"npm failed: {done.stderr.strip()[-200:]}"
