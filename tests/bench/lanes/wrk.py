"""wrk as the load: so many connections, each asking again as soon as it was answered."""

import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.bench.lanes.machine import BenchError, pinned

TIMEOUT_S = 60
# `response` would be called per answer and make wrk the bottleneck; `done` is called once.
_SCRIPT = """\
wrk.method = "POST"
{headers}
wrk.body = [==[{body}]==]
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    "\\nRESULT {{\\"requests\\":%d,\\"micros\\":%d,\\"bytes\\":%d,\\"refused\\":%d,\\"broken\\":%d,"
    .. "\\"p50\\":%d,\\"p95\\":%d,\\"p99\\":%d}}\\n",
    summary.requests, summary.duration, summary.bytes, e.status,
    e.connect + e.read + e.write + e.timeout,
    latency:percentile(50), latency:percentile(95), latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class Request:
    """What is asked, again and again."""

    url: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Figures:
    """What wrk saw."""

    requests: int  # answered completely
    seconds: float
    bytes: int
    not_2xx: int
    broken: int  # connections that failed, and answers that never came
    p50_ms: float
    p95_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


def check_installed() -> None:
    """Raise what to do when wrk is missing."""
    if shutil.which("wrk") is None:
        raise BenchError("wrk is not installed: apt-get install wrk")


def run(request: Request, *, connections: int, seconds: float, cores: frozenset[int]) -> Figures:
    """Load a server for a while."""
    headers = "\n".join(f'wrk.headers["{n}"] = "{v}"' for n, v in request.headers.items())
    script = _SCRIPT.format(headers=headers, body=request.body.decode())
    with tempfile.TemporaryDirectory(prefix="gwb-") as directory, pinned(cores):
        path = Path(directory) / "request.lua"
        path.write_text(script)
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
        command += ["--timeout", f"{TIMEOUT_S}s", "-s", str(path), request.url]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not found:
        raise BenchError(f"wrk failed: {done.stdout[-500:]} {done.stderr[-500:]}")
    told = json.loads(found[0].removeprefix("RESULT "))
    return Figures(
        requests=told["requests"],
        seconds=told["micros"] / 1e6,
        bytes=told["bytes"],
        not_2xx=told["refused"],
        broken=told["broken"],
        p50_ms=told["p50"] / 1000,
        p95_ms=told["p95"] / 1000,
        p99_ms=told["p99"] / 1000,
    )
