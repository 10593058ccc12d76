"""Publishes and revocations reach every worker while traffic flows, and no request fails.

How fast is measured by `python -m tests.bench.rollout`.
"""

import asyncio

import pytest

from tests.acceptance.rollout import (
    REVOKED_LOOK_S,
    add_deployments,
    last_accepted_s,
    publish_under_load,
)
from tests.acceptance.stack import WORKERS, Stack

pytestmark = pytest.mark.fleet

PUBLISHES = 6


def test_a_publish_reaches_every_worker_and_no_request_fails(stack: Stack) -> None:
    add_deployments(stack)
    taken, statuses = asyncio.run(publish_under_load(stack, PUBLISHES))
    assert set(statuses) == {200}, statuses
    assert statuses[200] > 50
    assert len(taken) == PUBLISHES * WORKERS


def test_a_revoked_key_is_refused_by_every_worker(stack: Stack) -> None:
    assert last_accepted_s(stack, "to be revoked") < REVOKED_LOOK_S - 0.5
