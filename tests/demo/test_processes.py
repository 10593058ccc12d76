"""What `manage.py up --demo` gets from the demonstration."""

from pathlib import Path
from typing import Any

import pytest

from gateway_admin.catalog.prices import price_book_load
from gateway_admin.demo import state
from gateway_admin.demo.processes import demo_children, demo_prepare
from gateway_admin.supervisor.errors import StartError
from tests import builders


def test_it_runs_a_simulator_and_the_traffic(tmp_path: Path) -> None:
    simulator, traffic = demo_children(data_dir=tmp_path)
    assert simulator.stage < traffic.stage  # what is called outlives who calls
    assert "DATABASE_URL" not in simulator.environment
    assert traffic.environment["GATEWAY_DATA_DIR"] == str(tmp_path)


def test_the_simulators_port_is_kept(tmp_path: Path) -> None:
    assert state.simulator_port(tmp_path) == state.simulator_port(tmp_path)
    assert state.simulator_url(tmp_path).endswith(f":{state.simulator_port(tmp_path)}")


@pytest.mark.django_db
def test_the_start_greets_with_the_accounts(tmp_path: Path) -> None:
    price_book_load()
    text = "\n".join(demo_prepare(data_dir=tmp_path))
    stored = state.stored_read(tmp_path)
    assert stored is not None
    for login in stored["logins"]:
        assert login["email"] in text
        assert login["password"] in text


@pytest.mark.django_db
def test_the_start_says_in_one_line_why_it_refuses(tmp_path: Path) -> None:
    builders.deployment()
    with pytest.raises(StartError, match="data of its own") as refused:
        demo_prepare(data_dir=tmp_path)
    assert "\n" not in str(refused.value)


def test_it_does_not_run_in_production(tmp_path: Path, settings: Any) -> None:
    settings.PRODUCTION = True
    with pytest.raises(StartError, match="production"):
        demo_children(data_dir=tmp_path)
