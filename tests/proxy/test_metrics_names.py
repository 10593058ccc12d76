"""Names that dashboards know, sums over worker processes, and how many series there can be."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).resolve().parents[2]
# What dashboards made for LiteLLM and for other gateways ask for, as it is scraped.
KNOWN = set(
    """
litellm_proxy_total_requests_metric_total litellm_proxy_failed_requests_metric_total
litellm_request_total_latency_metric_bucket litellm_llm_api_latency_metric_bucket
litellm_llm_api_time_to_first_token_metric_bucket litellm_overhead_latency_metric_bucket
litellm_spend_metric_total litellm_total_tokens_metric_total litellm_input_tokens_metric_total
litellm_output_tokens_metric_total litellm_requests_metric_total
litellm_cache_hits_metric_total litellm_cache_misses_metric_total
litellm_remaining_api_key_budget_metric litellm_remaining_team_budget_metric
litellm_remaining_user_budget_metric litellm_remaining_customer_budget_metric
litellm_deployment_state litellm_deployment_success_responses_total
litellm_deployment_failure_responses_total litellm_deployment_successful_fallbacks_total
litellm_deployment_failed_fallbacks_total litellm_deployment_cooled_down_total
litellm_in_flight_requests
llm_requests_total llm_request_latency_seconds_bucket llm_input_tokens_total
llm_output_tokens_total llm_estimated_cost_dollars llm_cache_hits_total llm_cache_misses_total
llm_circuit_breaker_state
""".split()  # noqa: SIM905 (a list would take 32 lines)
)

# One worker's life: two requests (one answered by a fallback), a hit, a state, a balance.
WORKER = """
from decimal import Decimal
from proxy.metrics import Metrics
from tests.proxy.events import event

m = Metrics()
attempt = {"deployment": "d1", "model": "m", "why": "first", "started_at": "", "latency_ms": 5.0,
           "status": 503, "error_class": "overloaded", "error": "busy"}
good = attempt | {"why": "fallback", "status": 200, "error_class": None}
base = event() | {"model": "m", "route": "/v1/chat/completions", "status": "ok",
                  "input_tokens": 10, "output_tokens": 5, "cost": "0.25", "latency_ms": 40.0,
                  "overhead_ms": 1.0, "ttft_ms": 9.0}
m.observe(base | {"why": "fallback", "attempts": [attempt, good]})
m.observe(base | {"status": "error", "why": "fallback", "attempts": [attempt, attempt],
                  "error_class": "overloaded", "input_tokens": 0, "output_tokens": 0})
m.cache.hits.labels("m").inc()
m.cache.misses.labels("m").inc()
m.admission.holds.set(3)
m.admission.refused("team", "budget")
m.admission.mode("MODE")
m.routing.breaker("openai", "d1", "STATE")
m.routing.transition("d1", "open")
m.budgets.remaining("team", "team-1", "search", Decimal("LEFT"))
for number in range(KEYS):
    m.budgets.remaining("key", f"key-{number}", "name", Decimal(1))
    m.budgets.remaining("user", str(number), f"u{number}@example.com", Decimal(1))
    m.budgets.remaining("customer", f"customer-{number}", "", Decimal(1))
    m.budgets.remaining("team", f"team-{number}", f"t{number}", Decimal(1))
print(__import__("os").getpid())
"""


class Scrape:
    """What /metrics of any worker says about all of them."""

    def __init__(self, directory: Path) -> None:
        told = _python("print(Metrics().render().decode())", directory)
        self.families = list(text_string_to_metric_families(told))
        self.samples = [sample for family in self.families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def series(self, name: str) -> int:
        return sum(sample.name == name for sample in self.samples)


def _python(code: str, directory: Path | None, **environ: str) -> str:
    """Run code in a process of its own; without a directory it speaks for itself alone."""
    code = f"from proxy.metrics import Metrics, forget_worker\n{code}"
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("GATEWAY_", "PROM"))}
    if directory is not None:
        inherited["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=inherited | {"PYTHONPATH": "."} | environ,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def worker(
    directory: Path, *, state: str, mode: str = "shared", left: str = "5", keys: int = 0, **env: str
) -> int:
    """A worker process that did its work and is still counted; returns its pid."""
    code = WORKER.replace("STATE", state).replace("MODE", mode).replace("LEFT", left)
    return int(_python(code.replace("KEYS", str(keys)), directory, **env))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two workers; the second one learned last of the breaker and of the balance."""
    directory = tmp_path_factory.mktemp("metrics")
    worker(directory, state="open", mode="local", left="5")
    worker(directory, state="half_open", left="4.5")
    return directory


def test_names_that_others_know(two: Path) -> None:
    told = Scrape(two)
    names = {sample.name for sample in told.samples}
    # A gauge that nobody set yet has no sample, but is described.
    described = {family.name for family in told.families}
    assert KNOWN - names - described - {"litellm_in_flight_requests"} <= {
        "litellm_remaining_api_key_budget_metric",
        "litellm_remaining_user_budget_metric",
        "litellm_remaining_customer_budget_metric",
    }


def test_counts_are_summed_over_workers(two: Path) -> None:
    told = Scrape(two)
    assert told.value("llm_requests_total", model="m", status="ok") == 2
    assert told.value("llm_requests_total", model="m") == 4
    assert told.value("litellm_requests_metric_total", model="m") == 4
    assert told.value("llm_input_tokens_total", model="m") == 20
    assert told.value("llm_output_tokens_total", model="m") == 10
    assert told.value("llm_estimated_cost_dollars", model="m") == 1.0
    assert told.value("litellm_spend_metric_total", model="m") == 1.0
    assert told.value("llm_request_latency_seconds_count", model="m") == 4
    assert told.value("llm_request_latency_seconds_bucket", model="m", le="+Inf") == 4
    assert told.value("llm_request_latency_seconds_bucket", model="m", le="0.025") == 0
    assert told.value("llm_cache_hits_total", model="m") == 2
    assert told.value("litellm_cache_hits_metric_total", model="m") == 2
    assert told.value("litellm_deployment_successful_fallbacks_total", model="m") == 2
    assert told.value("litellm_deployment_failed_fallbacks_total", model="m") == 2
    assert told.value("gateway_proxy_retries_total", model="m", why="fallback") == 2
    assert told.value("litellm_deployment_cooled_down_total", deployment="d1") == 2
    assert told.value("gateway_proxy_admission_refusals_total", scope="team", rule="budget") == 2
    assert told.value("gateway_proxy_holds") == 6


def test_what_workers_share_is_told_once(two: Path) -> None:
    told = Scrape(two)
    assert told.series("llm_circuit_breaker_state") == 1
    assert told.value("llm_circuit_breaker_state", provider="openai", deployment="d1") == 2
    assert told.value("litellm_deployment_state", provider="openai", deployment="d1") == 1
    assert told.value("litellm_remaining_team_budget_metric", team_alias="search") == 4.5
    assert told.value("gateway_proxy_counters_mode") == 1  # the worst worker's


def test_a_dead_worker_holds_nothing(tmp_path: Path) -> None:
    dead = worker(tmp_path, state="open", mode="unbuilt")
    worker(tmp_path, state="closed")
    _python(f"forget_worker({dead}, __import__('pathlib').Path({str(tmp_path)!r}))", tmp_path)
    told = Scrape(tmp_path)
    assert told.value("gateway_proxy_holds") == 3
    assert told.value("gateway_proxy_counters_mode") == 0
    assert told.value("llm_circuit_breaker_state", deployment="d1") == 0
    assert told.value("llm_requests_total", model="m") == 4  # what it did stays done


SUBJECTS = ("api_key", "user", "customer")


def test_ten_thousand_keys_are_no_series(tmp_path: Path) -> None:
    worker(tmp_path, state="closed", keys=10_000)
    told = Scrape(tmp_path)
    for subject in SUBJECTS:
        assert told.series(f"litellm_remaining_{subject}_budget_metric") == 0
    assert told.series("litellm_remaining_team_budget_metric") == 200
    assert told.value("gateway_proxy_budget_series_left_out_total", scope="team") > 9_000
    assert len(told.samples) < 500


def test_asked_for_they_are_told_up_to_a_number(tmp_path: Path) -> None:
    worker(tmp_path, state="closed", keys=10_000, GATEWAY_METRICS_KEY_LABELS="on")
    told = Scrape(tmp_path)
    for subject in SUBJECTS:
        assert told.series(f"litellm_remaining_{subject}_budget_metric") == 2_000
    for scope in ("key", "user", "customer"):
        assert told.value("gateway_proxy_budget_series_left_out_total", scope=scope) == 8_000


def test_every_described_metric_of_the_proxy_is_there() -> None:
    """The other way round is `tests/test_docs.py`."""
    page = (ROOT / "docs" / "metrics.md").read_text().partition("## Web")[0]
    described = set(re.findall(r"^\| `(\w+)` \|", page, re.M))
    # Names without samples yet: a single process describes every instrument it has.
    told = _python("print(Metrics().render().decode())", None)
    types = set(re.findall(r"^# TYPE (\w+) ", told, re.M))
    assert described - types == set()
    assert {name for name in types if not name.endswith("_created")} - described == set()
