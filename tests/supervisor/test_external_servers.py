"""`manage.py up` with DATABASE_URL and REDIS_URL."""

import os

from gateway_admin.lib.embedded_state import free_port
from tests.supervisor.installation import Installation, status


def test_given_servers_are_used_instead_of_embedded_ones(installation: Installation) -> None:
    base, _, _ = os.environ["REDIS_URL"].rpartition("/")
    servers = {"DATABASE_URL": os.environ["DATABASE_URL"], "REDIS_URL": f"{base}/60"}
    up = installation.up(**servers)
    up.wait_for("Gateway Admin is up")
    assert status(f"{installation.web}/readyz") == 200
    programs = " ".join(installation.processes().values())
    assert "valkey" not in programs
    assert not (installation.data_dir / "pg").exists()
    assert up.stop() == 0
    assert installation.processes() == {}


def test_an_unreachable_database_is_one_line_without_its_password(
    installation: Installation,
) -> None:
    port = free_port()
    refusal = installation.refused(DATABASE_URL=f"postgres://me:sesame@127.0.0.1:{port}/gateway")
    assert "DATABASE_URL" in refusal
    assert str(port) in refusal
    assert "sesame" not in installation.ups[-1].output
    assert installation.processes() == {}


def test_an_unreachable_redis_is_one_line_without_its_password(installation: Installation) -> None:
    port = free_port()
    refusal = installation.refused(REDIS_URL=f"redis://:sesame@127.0.0.1:{port}/0")
    assert "REDIS_URL" in refusal
    assert str(port) in refusal
    assert "sesame" not in installation.ups[-1].output
    assert installation.processes() == {}
