"""Snapshot -> the Router of the running LiteLLM proxy.

The first snapshot is loaded into an empty Router; every further one is a diff, applied
deployment by deployment with a yield to the event loop every few, so that no request waits
for a publish. A new Router is never built: LiteLLM's leaks its callbacks.

Each deployment is a group of its own, named by its id: which one is called, how often and
what comes after a failure is decided at the edge (routing.py), for every lane alike.

Credentials that rotate: LiteLLM caches provider clients under a key that contains the
secret and the address, so an upserted deployment never meets a client made with the old
secret (tests/proxy/test_publish.py shows it); the old client leaves the cache by its TTL.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import litellm
from litellm.types.router import Deployment as RouterDeployment

from proxy.errors import scrub
from proxy.reference_cycles import let_go_of_streams
from proxy.snapshot import Deployment, Snapshot, SnapshotError

# 1.3 ms per upsert: a handful keeps the loop's longest stall in single milliseconds.
YIELD_EVERY = 4
RETIRE_AFTER_S = 30.0


def new_router() -> litellm.Router:
    """An empty Router, set up the way this gateway uses it."""
    router = litellm.Router(
        model_list=[],
        # The relay decides what is called next; a group of one leaves nothing to choose.
        num_retries=0,
        fallbacks=[],
        max_fallbacks=0,
        disable_cooldowns=True,
        routing_strategy="simple-shuffle",
        ignore_invalid_deployments=False,
        set_verbose=False,
    )
    let_go_of_streams(router)
    return router


@dataclass(frozen=True, slots=True)
class _Entry:
    """One deployment as the Router is told of it."""

    deployment: Deployment
    info: Mapping[str, Any]  # LiteLLM's model_info

    def same_as(self, other: "_Entry | None") -> bool:
        """Whether the Router already has exactly this."""
        return (
            other is not None
            and self.info == other.info
            and dict(self.deployment.params) == dict(other.deployment.params)
        )


class RouterApplier:
    """Keeps one Router equal to the snapshot that is applied."""

    def __init__(self, router: litellm.Router) -> None:
        self.router = router
        self._applied: dict[str, _Entry] = {}
        self._coming: frozenset[str] = frozenset()  # of the snapshot that is being applied

    async def apply(self, snapshot: Snapshot) -> int:
        """Make the Router serve the snapshot; return how many deployments changed.

        Removals come RETIRE_AFTER_S later: requests that run on the old snapshot still call
        those deployments. If one cannot be built, everything done so far is undone and
        SnapshotError names it.
        """
        wanted = {
            row.id: _Entry(row, _info(snapshot, row)) for row in snapshot.deployments.values()
        }
        changed = [e for id, e in wanted.items() if not e.same_as(self._applied.get(id))]
        removed = [id for id in self._applied if id not in wanted]
        done: list[_Entry] = []
        self._coming = frozenset(wanted)
        try:
            for index, entry in enumerate(changed):
                done.append(entry)
                self._upsert(entry)
                if index % YIELD_EVERY == YIELD_EVERY - 1:
                    await asyncio.sleep(0)
        except SnapshotError:
            await self._undo(done)
            raise
        finally:
            self._coming = frozenset()
        self._applied = wanted
        if removed:
            loop = asyncio.get_running_loop()
            loop.call_later(RETIRE_AFTER_S, self._retire, removed)
        return len(changed) + len(removed)

    def _retire(self, removed: list[str]) -> None:
        for deployment_id in removed:
            if deployment_id not in self._applied and deployment_id not in self._coming:
                self.router.delete_deployment(id=deployment_id)

    def _upsert(self, entry: _Entry) -> None:
        row = entry.deployment
        try:
            self.router.upsert_deployment(
                RouterDeployment(
                    model_name=row.id,
                    litellm_params=dict(row.params),
                    model_info=dict(entry.info),
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

    async def _undo(self, done: list[_Entry]) -> None:
        for entry in done:
            previous = self._applied.get(entry.deployment.id)
            self.router.delete_deployment(id=entry.deployment.id)
            if previous is not None:
                self._upsert(previous)
            await asyncio.sleep(0)


def _info(snapshot: Snapshot, row: Deployment) -> dict[str, Any]:
    return {"id": row.id, "mode": snapshot.models[row.model]["mode"]}
