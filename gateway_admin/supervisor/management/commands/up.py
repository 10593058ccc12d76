"""`manage.py up`: the whole product in one terminal."""

import asyncio
import os
import sys
from argparse import ArgumentParser
from functools import partial
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from gateway_admin.supervisor import datadir, plan
from gateway_admin.supervisor.embedded import EmbeddedPostgres, EmbeddedValkey
from gateway_admin.supervisor.errors import StartError
from gateway_admin.supervisor.process import ChildSpec
from gateway_admin.supervisor.up import Supervisor


class Command(BaseCommand):
    help = "Start the embedded servers, migrate, and run web, worker and proxies until Ctrl-C."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--demo", action="store_true", help="with an example organisation and live traffic"
        )

    def handle(self, *args: Any, demo: bool = False, **options: Any) -> None:
        try:
            asyncio.run(_supervisor(demo=demo).run())
        except StartError as error:
            raise CommandError(str(error)) from error


def _supervisor(*, demo: bool) -> Supervisor:
    """Check what can be checked before anything runs, or raise StartError."""
    data_dir: Path = settings.DATA_DIR
    descriptor = datadir.lock(data_dir)
    plan.require_ports()
    plan.require_static_files()
    postgres, valkey = _embedded_servers(data_dir)
    extra: list[ChildSpec] = []
    prepare = None
    if demo:
        from gateway_admin.demo.processes import demo_children, demo_prepare

        extra = demo_children(data_dir=data_dir)
        prepare = partial(demo_prepare, data_dir=data_dir)
    return Supervisor(
        data_dir=data_dir,
        lock_descriptor=descriptor,
        postgres=postgres,
        valkey=valkey,
        extra=extra,
        demo=prepare,
    )


def _embedded_servers(data_dir: Path) -> tuple[EmbeddedPostgres | None, EmbeddedValkey | None]:
    """None for a server that DATABASE_URL or REDIS_URL names."""
    own_postgres = not os.environ.get("DATABASE_URL")
    own_valkey = not os.environ.get("REDIS_URL")
    if not own_postgres and not own_valkey:
        return None, None
    state, changed = datadir.embedded_state(data_dir, postgres=own_postgres, valkey=own_valkey)
    if changed:
        # The settings were read before the servers had an address: start over with them.
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 (ourselves)
    return (
        EmbeddedPostgres(data_dir / "pg", state.postgres) if own_postgres else None,
        EmbeddedValkey(data_dir / "valkey", state.valkey) if own_valkey else None,
    )
