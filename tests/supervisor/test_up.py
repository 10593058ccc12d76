"""`manage.py up` with embedded servers, as a person meets it. The tests share a directory."""

import os
import re
import signal
from functools import partial

import httpx
import pytest

from tests.supervisor.installation import SETUP_LINK, Installation, serves, status

READY = "all processes are ready"


def test_a_first_start_leads_to_a_usable_page(installation: Installation) -> None:
    up = installation.up()
    up.wait_for(READY)
    link = SETUP_LINK.search(up.output)
    assert link, up.output
    assert status(link.group()) == 200
    assert status(f"{installation.web}/livez") == 200
    assert httpx.get(f"{installation.web}/readyz").json() == {
        "status": "ok",
        "checks": {"database": "ok", "redis": "ok", "migrations": "ok"},
    }
    assert status(f"{installation.proxy}/health/liveliness") == 200
    assert status(f"{installation.web}/static/vendor/manifest.json") == 200
    prefixes = {match.group(1) for match in re.finditer(r"^([\w ]+?) *\|", up.output, re.M)}
    assert {"up"} <= prefixes

    refusal = installation.refused()
    assert "already runs" in refusal
    assert f"process {up.process.pid}" in refusal
    assert "GATEWAY_DATA_DIR" in refusal

    _no_secret_is_on_a_command_line(installation)
    _a_crashed_child_comes_back(installation)

    assert up.stop(signal.SIGINT) == 0, up.output
    assert installation.processes() == {}
    assert "Traceback" not in up.output


def _no_secret_is_on_a_command_line(installation: Installation) -> None:
    held = (installation.data_dir / "secrets.json").read_text()
    held += (installation.data_dir / "embedded.json").read_text()
    held += (installation.data_dir / "fleet" / "prod.json").read_text()
    secrets = {text for text in re.findall(r'"([^"]+)"', held) if len(text) > 20}
    commands = " ".join(installation.processes().values())
    assert len(secrets) >= 6
    assert not [secret for secret in secrets if secret in commands]
    for path in ("secrets.json", "embedded.json", "fleet/prod.json", "valkey/valkey.conf"):
        assert (installation.data_dir / path).stat().st_mode & 0o077 == 0, path


def _a_crashed_child_comes_back(installation: Installation) -> None:
    up = installation.ups[0]
    for count, program in enumerate(("granian", "valkey-server"), start=1):
        os.kill(installation.find(program), signal.SIGKILL)
        up.wait_for("starting it again in 1 s", count=count)
        up.wait_until(partial(_runs, installation, program), f"{program} is back")
    up.wait_until(lambda: status(f"{installation.web}/readyz") == 200, "everything is usable")


def _runs(installation: Installation, program: str) -> bool:
    return any(program in command for command in installation.processes().values())


def test_a_second_start_is_headless_and_sigterm_leaves_nothing(
    installation: Installation,
) -> None:
    token = "gwt-headless-" + "t" * 30
    up = installation.up(
        GATEWAY_ADMIN_EMAIL="first@example.com",
        GATEWAY_ADMIN_PASSWORD="correct horse battery staple",
        GATEWAY_ADMIN_TOKEN=token,
    )
    up.wait_until(
        lambda: status(f"{installation.web}/livez") == 200 and serves(installation),
        "web and proxy answer",
    )
    up.wait_for("Gateway Admin is up")
    assert not SETUP_LINK.search(up.output)
    headers = {"Authorization": f"Bearer {token}"}
    answer = httpx.get(f"{installation.web}/api/v1/environments/", headers=headers)
    assert answer.status_code == 200, answer.text
    up.process.send_signal(signal.SIGTERM)  # make passes on what its process group got too
    assert up.stop(signal.SIGTERM) == 0, up.output
    assert "killing" not in up.output
    assert installation.processes() == {}


def test_a_killed_supervisor_leaves_nothing_and_the_next_one_starts(
    installation: Installation,
) -> None:
    up = installation.up()
    up.wait_for(READY)
    up.process.kill()
    successor = installation.up()  # at once: it waits for the cleaning up
    successor.wait_for(READY)
    assert successor.stop() == 0
    assert installation.processes() == {}


def test_stopping_while_it_starts_leaves_nothing(installation: Installation) -> None:
    up = installation.up()
    up.wait_until(lambda: len(installation.processes()) > 3, "some children run")
    assert up.stop() == 0, up.output
    assert installation.processes() == {}


def test_another_major_version_is_refused_with_advice(installation: Installation) -> None:
    version = installation.data_dir / "pg" / "PG_VERSION"
    written = version.read_text()
    version.write_text("13\n")
    try:
        refusal = installation.refused()
    finally:
        version.write_text(written)
    assert "PostgreSQL 13" in refusal
    assert "dump" in refusal
    assert "docs/operations.md" in refusal
    assert installation.processes() == {}


@pytest.mark.parametrize("setting", ["GATEWAY_WEB_PORT", "GATEWAY_PROXY_PORT"])
def test_an_occupied_port_is_named_with_its_setting(
    installation: Installation, setting: str
) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as occupant:
        port = str(occupant.getsockname()[1])
        refusal = installation.refused(**{setting: port})
    assert port in refusal
    assert setting in refusal
    assert installation.processes() == {}
