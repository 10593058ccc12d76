"""How fast a publish is in force and a revoked key is dead, under load.

    python -m tests.bench.rollout

A whole installation with two proxy workers, 100 deployments, four callers without pause
between answers but 20 ms. Fails when a request failed or a bound of the design is broken.
"""

import asyncio
import statistics

from tests.acceptance.rollout import add_deployments, last_accepted_s, publish_under_load
from tests.acceptance.stack import running_stack

PUBLISHES = 60
REVOCATIONS = 20
BOUND_S = 1.0


def main() -> None:
    with running_stack() as stack:
        add_deployments(stack)
        taken, statuses = asyncio.run(publish_under_load(stack, PUBLISHES))
        revoked = [last_accepted_s(stack, f"revoked {n}") for n in range(REVOCATIONS)]
    p99 = statistics.quantiles(taken, n=100)[98]
    print(  # noqa: T201
        f"{PUBLISHES} publishes, {len(taken)} acknowledgements, requests by status "
        f"{dict(statuses)}: p50 {statistics.median(taken):.3f} s, p99 {p99:.3f} s, "
        f"max {max(taken):.3f} s\n"
        f"{REVOCATIONS} revocations: last accepted after p50 {statistics.median(revoked):.3f} s, "
        f"max {max(revoked):.3f} s"
    )
    assert set(statuses) == {200}, statuses
    assert p99 < BOUND_S
    assert max(revoked) < BOUND_S


if __name__ == "__main__":
    main()
