"""Fixtures of all tests: real PostgreSQL and Valkey, the cast, clients, a live site, a browser."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest

from tests.settings import servers

if TYPE_CHECKING:
    from django.test import Client
    from playwright.sync_api import Browser, Page

    from tests.people import People

CHROMIUM = Path(os.environ.get("GATEWAY_TEST_CHROMIUM", "/usr/bin/chromium"))
CHROMIUM_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


OWN_PID = os.getpid()


def _end(_number: int, _frame: FrameType | None) -> None:
    """A run that is told to end stops the servers that it has started."""
    if os.getpid() != OWN_PID:
        os._exit(143)  # forked from a test: its servers are its parent's
    pytest.exit("stopped by a signal", returncode=143)


def pytest_configure(config: pytest.Config) -> None:
    signal.signal(signal.SIGTERM, _end)
    if servers.owned:
        servers.start()


def pytest_unconfigure(config: pytest.Config) -> None:
    if servers.owned:
        servers.stop()


def _commits(item: pytest.Item) -> bool:
    """Whether all tables are empty after this test."""
    marker = item.get_closest_marker("django_db")
    names = getattr(item, "fixturenames", [])
    transactional = marker is not None and bool(marker.kwargs.get("transaction"))
    return transactional or bool({"transactional_db", "live_server"} & set(names))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that commits empties all tables; give such tests the migrations' rows back."""
    for item in items:
        if _commits(item):
            restore = pytest.mark.django_db(transaction=True, serialized_rollback=True)
            item.add_marker(restore, append=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Give them back to the next test too: files of both kinds alternate in one worker."""
    yield
    if _commits(item) and nextitem is not None:  # after the last one the database is gone
        _restore_migration_rows(item.config)


def _restore_migration_rows(config: pytest.Config) -> None:
    from django.db import connection
    from pytest_django.plugin import blocking_manager_key

    rows = getattr(connection, "_test_serialized_contents", None)
    if rows:
        with config.stash[blocking_manager_key].unblock():
            connection.creation.deserialize_db_from_string(rows)


@pytest.fixture(autouse=True)
def empty_valkey() -> None:
    """Cache, counters and broker of one test are not those of the next."""
    import redis
    from django.conf import settings

    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.flushdb()


@pytest.fixture
def valkey() -> Iterator[Any]:
    """A client of this worker's own Valkey database."""
    import redis
    from django.conf import settings

    with redis.Redis.from_url(settings.REDIS_URL, decode_responses=True) as client:
        yield client


@pytest.fixture
def people(db: None) -> "People":
    from tests.people import people_create

    return people_create()


@pytest.fixture
def client_of() -> Any:
    """`client_of(people.owner)`: a browser-like client that is signed in as that person."""
    from django.test import Client

    def signed_in(user: Any) -> "Client":
        client = Client()
        client.force_login(user)
        return client

    return signed_in


@pytest.fixture
def api_of() -> Any:
    """`api_of(people.admin)`: a client of the REST API with a token of that person."""
    from rest_framework.test import APIClient

    from gateway_admin.accounts.models import ApiToken
    from gateway_admin.accounts.services import api_token_create

    def with_token(user: Any, scope: str = ApiToken.Scope.WRITE) -> APIClient:
        _, text = api_token_create(actor=user, user=user, name="test", scope=scope)
        client = APIClient()
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {text}")
        return client

    return with_token


@pytest.fixture
def live_web(live_server: Any, settings: Any) -> str:
    """Address of a live site in this process, on this worker's database."""
    url: str = live_server.url
    settings.PUBLIC_URL = url
    return url


@pytest.fixture(scope="module")
def browser(django_db_setup: None) -> Iterator["Browser"]:
    """Chromium of the system. Per module: Playwright's loop must not meet asyncio tests."""
    from django.db import connection
    from playwright.sync_api import sync_playwright

    if not CHROMIUM.exists():
        pytest.fail(
            f"{CHROMIUM} is missing: the browser tests need Chromium. Install the package "
            "`chromium`, or set GATEWAY_TEST_CHROMIUM to its path."
        )
    # Playwright's synchronous interface keeps a loop in this thread, which Django mistrusts.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    rows = getattr(connection, "_test_serialized_contents", None)  # None: no test commits
    with sync_playwright() as playwright:
        # Inside a loop Django's connection is another object: it restores the same rows.
        connection._test_serialized_contents = rows  # type: ignore[attr-defined]
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=CHROMIUM_FLAGS)
        yield chromium
        chromium.close()
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture
def page(browser: "Browser", live_web: str) -> Iterator["Page"]:
    """A fresh page of the live site; relative addresses work. Errors in scripts fail the test."""
    context = browser.new_context(base_url=live_web, viewport={"width": 1440, "height": 900})
    context.set_default_timeout(10_000)
    errors: list[str] = []
    page = context.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert not errors, errors


@pytest.fixture
def signed_in(page: "Page", live_web: str) -> Any:
    """`signed_in(people.admin)` returns the page with that person's session."""
    from django.test import Client

    def sign_in(user: Any) -> "Page":
        client = Client()
        client.force_login(user)
        cookie = client.cookies["sessionid"].value
        page.context.add_cookies([{"name": "sessionid", "value": cookie, "url": live_web}])
        return page

    return sign_in
