"""Snapshot -> the Router of the running LiteLLM proxy.

The first snapshot is loaded into an empty Router; every further one is a diff, applied
deployment by deployment with a yield to the event loop every few, so that no request waits
for a publish. A new Router is never built: LiteLLM's leaks its callbacks.

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
from proxy.snapshot import Deployment, Snapshot, SnapshotError

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
        optional_pre_call_checks=[
            "enforce_model_rate_limits",  # a deployment's RPM and TPM, per worker
            "responses_api_deployment_check",  # previous_response_id stays where it is known
        ],
        set_verbose=False,
    )


@dataclass(frozen=True, slots=True)
class _Entry:
    """One deployment as the Router is told of it."""

    deployment: Deployment
    info: Mapping[str, Any]  # LiteLLM's model_info

    def same_as(self, other: "_Entry | None") -> bool:
        """Whether the Router already has exactly this."""
        return (
            other is not None
            and self.deployment.model == other.deployment.model
            and self.info == other.info
            and dict(self.deployment.params) == dict(other.deployment.params)
        )


class RouterApplier:
    """Keeps one Router equal to the snapshot that is applied."""

    def __init__(self, router: litellm.Router) -> None:
        self.router = router
        self._applied: dict[str, _Entry] = {}

    async def apply(self, snapshot: Snapshot) -> int:
        """Make the Router serve the snapshot; return how many deployments changed.

        Additions and changes come first, removals last, so a model that is moved from one
        deployment to another is served throughout. If one cannot be built, everything
        done so far is undone and SnapshotError names it.
        """
        wanted = {
            row.id: _Entry(row, _info(snapshot, row)) for row in snapshot.deployments.values()
        }
        changed = [e for id, e in wanted.items() if not e.same_as(self._applied.get(id))]
        removed = [id for id in self._applied if id not in wanted]
        done: list[_Entry] = []
        try:
            for index, entry in enumerate(changed):
                done.append(entry)
                self._upsert(entry)
                if index % YIELD_EVERY == YIELD_EVERY - 1:
                    await asyncio.sleep(0)
        except SnapshotError:
            await self._undo(done)
            raise
        for index, deployment_id in enumerate(removed):
            self.router.delete_deployment(id=deployment_id)
            if index % YIELD_EVERY == YIELD_EVERY - 1:
                await asyncio.sleep(0)
        self._applied = wanted
        self.router.num_retries = snapshot.environment["num_retries"]
        return len(changed) + len(removed)

    def _upsert(self, entry: _Entry) -> None:
        row = entry.deployment
        try:
            self.router.upsert_deployment(
                RouterDeployment(
                    model_name=row.model,
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
    info: dict[str, Any] = {"id": row.id, "mode": snapshot.models[row.model]["mode"]}
    if len(snapshot.by_model[row.model]) == 1:
        # Cooling down the only deployment would hide its real error behind "none available".
        info["cooldown_time"] = 0
    return info
