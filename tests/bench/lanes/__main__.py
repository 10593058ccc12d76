"""Entry point; see the package."""

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx

from tests.bench.lanes import machine, matrix, ours, phases, report, rivals, workers, wrk
from tests.bench.lanes.bounds import judged
from tests.bench.lanes.machine import BenchError, Cores, process
from tests.bench.lanes.matrix import LATENCIES, Matrix
from tests.bench.lanes.measure import Bench, Results
from tests.bench.lanes.variants import BY_NAME, VARIANTS, Site
from tests.proxy import own_valkey
from tests.proxy.replica import Replica, free_port

LOG_SHOWN = 3000


def say(text: str) -> None:
    """One line, at once."""
    print(text, flush=True)  # noqa: T201


def arguments() -> argparse.Namespace:
    """What the caller wants."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.lanes", description="Measure gateways against each other."
    )
    names = ",".join(BY_NAME)
    parser.add_argument("--quick", action="store_true", help="only what the bounds need")
    parser.add_argument("--variants", default=names, help=f"of {names}")
    parser.add_argument("--only", default="plain,stream", help="of plain,stream")
    parser.add_argument(
        "--write", action="store_true", help="write docs/performance.md and its chart"
    )
    return parser.parse_args()


@contextlib.contextmanager
def surroundings(
    cores: Cores, plan: Matrix, results: Results
) -> Iterator[tuple[Bench, Replica | None, str, Path]]:
    """Mock, Valkey, control plane and the gateways that are asked for."""
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gwb-")))
        port = free_port()
        command = [sys.executable, "-m", "tests.bench.lanes.mock", str(port)]
        provider = stack.enter_context(
            process(command, home / "mock.log", cores=cores.load, port=port)
        )
        site = Site(f"http://127.0.0.1:{port}")
        valkey = stack.enter_context(own_valkey.running())
        peer = stack.enter_context(ours.peer(valkey.url, cores.load))
        servers = {BY_NAME[name].server for part in plan.plans for name in part.variants}
        for name, start in (("litellm", rivals.litellm), ("tuned", rivals.tuned)):
            if name in servers:
                site.ports[name], site.pids[name] = stack.enter_context(
                    start(site.provider, home, LATENCIES, cores=cores.gateway)
                )
        if "portkey" in servers:
            folder = rivals.install_portkey()
            if isinstance(folder, Path):
                site.ports["portkey"], site.pids["portkey"] = stack.enter_context(
                    rivals.portkey(home, folder, cores=cores.gateway)
                )
            else:
                results.left_out["portkey"] = folder
        replica = None
        if "ours" in servers:
            ours.tell(peer, site.provider, LATENCIES)
            replica = stack.enter_context(ours.replica(peer, valkey.url, home, cores=cores.gateway))
            site.ports["ours"], site.pids["ours"] = replica.port, ours.pid_of(replica)
            ours.wait_ready(peer, workers=1)
        bench = Bench(site, cores, peer, results, say, servers=(provider, valkey.pid))
        yield bench, replica, valkey.url, home


def measured(cores: Cores, plan: Matrix) -> Results:
    """Run everything."""
    results = Results()
    with surroundings(cores, plan, results) as (bench, replica, redis_url, home):
        try:
            for part in plan.plans:
                bench.run(part)
            phases.paced(bench, plan, home)
            phases.first_token(bench, plan)
            if replica is not None:
                workers.two_workers(bench, plan, replica, redis_url, home)
        except (BenchError, OSError, AssertionError, httpx.HTTPError) as error:
            # What was measured until then is told.
            results.problems.append(str(error))
        if replica is not None and results.problems:
            say(f"the replica's log ends with:\n{replica.log_path.read_text()[-LOG_SHOWN:]}")
    return results


def main() -> int:
    """Measure, tell, judge."""
    wanted = arguments()
    variants = set(wanted.variants.split(","))
    if unknown := variants - set(BY_NAME):
        raise BenchError(f"no such variant: {', '.join(sorted(unknown))}")
    wrk.check_installed()
    cores = Cores.found()
    os.sched_setaffinity(0, cores.load)
    # Whoever ends the bench ends what it has started, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    header = f"{datetime.now(UTC):%Y-%m-%d}, {machine.described()}."
    say(header)
    began = time.monotonic()
    plan = matrix.QUICK if wanted.quick else matrix.FULL
    results = measured(cores, matrix.chosen(plan, variants, set(wanted.only.split(","))))
    say("\n".join(["", *report.lines(results), ""]))
    for problem in results.problems:
        say(f"WRONG: {problem}")
    whole = len(variants) == len(VARIANTS) and wanted.only == "plain,stream"
    if wanted.write and whole:
        report.write(results, header)
    missed = [bound.text for bound, _, word in judged(results) if word == "MISSED"]
    minutes = (time.monotonic() - began) / 60
    say(f"{len(results.problems)} wrong, {len(missed)} bounds missed, {minutes:.1f} minutes")
    return 1 if results.problems or missed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        sys.exit(f"bench: {error}")
