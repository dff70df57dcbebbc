"""One measurement: wrk on its own core against one target."""

from __future__ import annotations

import json
import math
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.bodies import Body
from bench.servers import CLIENT_CORE, Target

SCRIPT = """
wrk.method = "POST"
local file = io.open("%s", "rb")
wrk.body = file:read("*a")
file:close()
%s
done = function(summary, latency, requests)
  io.stderr:write(string.format(
    '{"requests":%%d,"seconds":%%f,"p50_us":%%f,"p95_us":%%f,"p99_us":%%f,"errors":%%d}',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(95), latency:percentile(99),
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status
      + summary.errors.timeout))
end
"""


@dataclass(frozen=True)
class Measured:
    """One pass. `errors` counts answers other than 2xx or 3xx and broken connections; a pass with any is void."""

    requests_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    errors: int

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def measure(
    target: Target,
    body: Body,
    connections: int,
    seconds: float,
    folder: Path,
    more: str = "",
    refusals: bool = False,
    warm: bool = True,
) -> Measured:
    """One pass of wrk with so many connections, after a second of warm-up (not if `warm` is false). `more` is added to
    its script. With `refusals` a pass with errors counts: its rate is that of the good answers."""
    sent = {**body.headers, **target.headers}
    headers = "".join(f'wrk.headers["{name}"] = "{value}"\n' for name, value in sent.items())
    script = folder / "load.lua"
    script.write_text(SCRIPT % (body.path, headers + more))
    if warm:
        _wrk(target.url, script, connections, min(1.0, seconds))
    out = _wrk(target.url, script, connections, seconds)
    found = json.loads(out[out.index("{") :])
    if found["errors"] and not refusals:
        raise RuntimeError(f"{found['errors']} requests failed against {target.url}")
    return Measured(
        (found["requests"] - found["errors"]) / found["seconds"],
        found["p50_us"] / 1e3,
        found["p95_us"] / 1e3,
        found["p99_us"] / 1e3,
        found["errors"],
    )


def _wrk(url: str, script: Path, connections: int, seconds: float) -> str:
    command = [
        "taskset",
        "-c",
        CLIENT_CORE,
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{math.ceil(seconds)}s",
        "--timeout",
        "10s",
        "-s",
        str(script),
        url,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60)
    return done.stderr
