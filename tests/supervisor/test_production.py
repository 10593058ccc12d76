"""GATEWAY_ENV=production starts on given secrets and real servers, or not at all."""

import base64
import json
import subprocess
import sys

import pytest

from tests.supervisor.installation import ROOT, Installation

COMPLETE = {
    "GATEWAY_ENV": "production",
    "GATEWAY_SECRET_KEY": "s" * 50,
    "GATEWAY_ENCRYPTION_KEYS": "k1:" + base64.b64encode(b"e" * 32).decode(),
    "GATEWAY_KEY_PEPPER": base64.b64encode(b"p" * 32).decode(),
    "GATEWAY_ALLOWED_HOSTS": "gateway.example.com",
    "DATABASE_URL": "postgres://gateway:word@127.0.0.1:1/gateway",
    "REDIS_URL": "redis://127.0.0.1:1/0",
}


def load_settings(environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", "import gateway_admin.settings"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_complete_environment_is_accepted(installation: Installation) -> None:
    done = load_settings(installation.environment(**COMPLETE))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("missing", sorted(set(COMPLETE) - {"GATEWAY_ENV"}))
def test_each_missing_setting_is_named(installation: Installation, missing: str) -> None:
    # Secrets that an earlier development start generated do not count.
    installation.data_dir.mkdir(exist_ok=True)
    (installation.data_dir / "secrets.json").write_text(json.dumps({missing: "generated"}))
    given = {name: value for name, value in COMPLETE.items() if name != missing}
    done = load_settings(installation.environment(**given))
    assert done.returncode != 0
    assert missing in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GATEWAY_ENCRYPTION_KEYS", "k1:c2hvcnQ="),
        ("GATEWAY_KEY_PEPPER", "not base64"),
        ("GATEWAY_WEB_PORT", "eighty"),
        ("GATEWAY_ENV", "staging"),
    ],
)
def test_each_unusable_setting_is_named(installation: Installation, name: str, value: str) -> None:
    done = load_settings(installation.environment(**COMPLETE | {name: value}))
    assert done.returncode != 0
    assert name in done.stderr.splitlines()[-1]


def test_up_says_it_in_one_line(installation: Installation) -> None:
    assert "GATEWAY_SECRET_KEY" in installation.refused(GATEWAY_ENV="production")


@pytest.mark.parametrize("version", [(3, 10, 14), (3, 14, 0)])
def test_an_unsupported_python_is_one_line(version: tuple[int, int, int]) -> None:
    script = (
        f"import runpy, sys; sys.version_info = {version}; sys.argv = ['manage.py', 'up'];"
        "runpy.run_path('manage.py', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    found = ".".join(map(str, version))
    assert done.stderr == f"Gateway Admin needs Python 3.11 to 3.13; this is {found}.\n"
