"""Snapshot -> the Router of the running LiteLLM proxy.

The first snapshot is loaded into an empty Router; every further one is a diff, applied
deployment by deployment with a yield to the event loop every few, so that no request waits
for a publish. A new Router is never built: LiteLLM's leaks its callbacks.

Credentials that rotate: LiteLLM caches provider clients under a key that contains the
secret and the address, so an upserted deployment never meets a client made with the old
secret (tests/proxy/test_publish.py shows it); the old client leaves the cache by its TTL.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import litellm
from litellm.types.router import Deployment as RouterDeployment

from proxy.errors import scrub
from proxy.snapshot import Deployment, Snapshot, SnapshotError

logger = logging.getLogger("gateway.router")

# 1.3 ms per upsert: a handful keeps the loop's longest stall in single milliseconds.
YIELD_EVERY = 4


def new_router() -> litellm.Router:
    """An empty Router, set up the way this gateway uses it."""
    return litellm.Router(
        model_list=[],
        num_retries=0,
        # Fallbacks are given per request by the plugin, limited to what the key may use.
        fallbacks=[],
        max_fallbacks=10,
        routing_strategy="simple-shuffle",
        ignore_invalid_deployments=False,
        set_verbose=False,
    )


class RouterApplier:
    """Keeps one Router equal to the snapshot that is applied."""

    def __init__(self, router: litellm.Router) -> None:
        self.router = router
        self._applied: dict[str, Deployment] = {}

    async def apply(self, snapshot: Snapshot) -> int:
        """Make the Router serve the snapshot; return how many deployments changed.

        Additions and changes come first, removals last, so a model that is moved from one
        deployment to another is served throughout. If one cannot be built, everything
        done so far is undone and SnapshotError names it.
        """
        wanted = snapshot.deployments
        changed = [row for row in wanted.values() if not _same(self._applied.get(row.id), row)]
        removed = [row for row in self._applied.values() if row.id not in wanted]
        before = dict(self._applied)
        done: list[Deployment] = []
        try:
            for index, row in enumerate(changed):
                done.append(row)
                self._upsert(row, mode=_mode(snapshot, row))
                if index % YIELD_EVERY == YIELD_EVERY - 1:
                    await asyncio.sleep(0)
        except SnapshotError:
            await self._undo(done, before)
            raise
        for index, row in enumerate(removed):
            self.router.delete_deployment(id=row.id)
            if index % YIELD_EVERY == YIELD_EVERY - 1:
                await asyncio.sleep(0)
        self._applied = dict(wanted)
        self.router.num_retries = snapshot.environment["num_retries"]
        return len(changed) + len(removed)

    def _upsert(self, row: Deployment, *, mode: str | None = None) -> None:
        try:
            self.router.upsert_deployment(
                RouterDeployment(
                    model_name=row.model,
                    litellm_params=dict(row.params),  # type: ignore[arg-type]
                    model_info={"id": row.id, "mode": mode},  # type: ignore[arg-type]
                )
            )
        except Exception as error:  # noqa: BLE001  # LiteLLM and pydantic raise many kinds
            text = scrub(f"{type(error).__name__}: {error}", row.secrets)[:500]
            raise SnapshotError(
                f"deployment {row.name!r} cannot be built: {text}", deployment=row.id
            ) from None
        if not self.router.has_model_id(row.id):
            raise SnapshotError(
                f"deployment {row.name!r} was not accepted by LiteLLM", deployment=row.id
            )

    async def _undo(self, done: list[Deployment], before: Mapping[str, Deployment]) -> None:
        for row in done:
            previous = before.get(row.id)
            self.router.delete_deployment(id=row.id)
            if previous is not None:
                self._upsert(previous)
            await asyncio.sleep(0)


def _same(known: Deployment | None, wanted: Deployment) -> bool:
    return (
        known is not None
        and known.model == wanted.model
        and dict(known.params) == dict(wanted.params)
    )


def _mode(snapshot: Snapshot, row: Deployment) -> str | None:
    """LiteLLM's word for what the model does, as far as it knows one."""
    mode: Any = snapshot.models[row.model]["mode"]
    return mode if isinstance(mode, str) else None
