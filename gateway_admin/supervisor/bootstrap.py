"""What an installation has before its first page: tables, prices, an administrator, fleets.

Everything here may run any number of times, and at once from several machines.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from gateway_admin.accounts import services as accounts
from gateway_admin.accounts.models import ApiToken, User
from gateway_admin.accounts.roles import Role
from gateway_admin.catalog.models import Environment
from gateway_admin.catalog.prices import price_book_load
from gateway_admin.fleet.identity import identity_file
from gateway_admin.lib.errors import InvalidInput
from gateway_admin.supervisor.errors import StartError
from gateway_admin.supervisor.probes import local_url

BOOTSTRAP_LOCK = 7_146_203_118  # any number; the same on every machine
HEADLESS_TOKEN_NAME = "GATEWAY_ADMIN_TOKEN"  # noqa: S105 (a name)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [BOOTSTRAP_LOCK])
        try:
            yield
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [BOOTSTRAP_LOCK])


def bootstrap(environ: Mapping[str, str]) -> str | None:
    """Migrate, load prices, create the administrator; return a set-up link if one is needed."""
    try:
        with _one_at_a_time():
            migrate()
            price_book_load()
            administrator_ensure(environ)
            return setup_link()
    finally:
        connection.close()


def pending_migrations() -> list[str]:
    """Names of migrations that this database lacks."""
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return [f"{migration.app_label}.{migration.name}" for migration, _ in plan]


def migrate() -> None:
    """Nothing but one query when nothing is pending."""
    if pending_migrations():
        call_command("migrate", interactive=False, verbosity=0)


def administrator_ensure(environ: Mapping[str, str]) -> None:
    """Create the first administrator from the GATEWAY_ADMIN_ settings, if they are set.

    The password is used for a new account only: a restart never resets one that the person
    has changed. The token is kept equal to its setting.
    """
    email = environ.get("GATEWAY_ADMIN_EMAIL", "").strip()
    password = environ.get("GATEWAY_ADMIN_PASSWORD", "")
    token = environ.get("GATEWAY_ADMIN_TOKEN", "").strip()
    if not email:
        if password or token:
            raise StartError(
                "GATEWAY_ADMIN_PASSWORD and GATEWAY_ADMIN_TOKEN belong to an administrator: "
                "set GATEWAY_ADMIN_EMAIL as well."
            )
        return
    if not password and not token:
        raise StartError(
            "GATEWAY_ADMIN_EMAIL is set: set GATEWAY_ADMIN_PASSWORD, GATEWAY_ADMIN_TOKEN or both."
        )
    user = User.objects.filter(email__iexact=email).first()
    if user is None:
        user = accounts.user_create(
            actor=None, email=email, role=Role.ADMIN, password=password or None
        )
    if token:
        _token_ensure(user, token)


def _token_ensure(user: User, text: str) -> None:
    try:
        found = accounts.api_token_resolve(presented=text)
        if found is not None and found.user_id == user.pk:
            return
        ApiToken.objects.filter(user=user, name=HEADLESS_TOKEN_NAME).delete()
        accounts.api_token_store(
            user=user, name=HEADLESS_TOKEN_NAME, text=text, scope=ApiToken.Scope.WRITE
        )
    except InvalidInput as error:
        raise StartError(f"GATEWAY_ADMIN_TOKEN: {error}") from error


def setup_link() -> str | None:
    """A fresh one-time link while there is no administrator."""
    if accounts.has_administrator():
        return None
    return f"{settings.PUBLIC_URL}/setup/{accounts.setup_link_create()}/"


def fleet_file(slug: str) -> Path:
    path: Path = settings.DATA_DIR / "fleet" / f"{slug}.json"
    return path


def fleet_files_write() -> list[str]:
    """Write the identity of each embedded proxy; return the environments where it changed."""
    try:
        return [slug for slug in settings.PROXY_ENVIRONMENTS if _fleet_file_write(slug)]
    finally:
        connection.close()


def _fleet_file_write(slug: str) -> bool:
    environment = Environment.objects.filter(slug=slug).first()
    if environment is None:
        known = ", ".join(Environment.objects.values_list("slug", flat=True))
        raise StartError(
            f"GATEWAY_PROXY_ENVIRONMENTS names {slug!r}, which does not exist: choose from {known}."
        )
    identity = identity_file(environment)
    # The embedded proxy reaches the site directly, whatever stands in front of it.
    identity["control_plane_url"] = local_url(settings.WEB_HOST, settings.WEB_PORT)
    path = fleet_file(slug)
    text = json.dumps(identity, indent=1)
    if path.exists() and path.read_text() == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.replace(path)
    return True
