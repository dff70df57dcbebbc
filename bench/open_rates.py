"""Latency where requests come evenly spaced, whether earlier ones were answered or not (constant arrival)."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import uvloop

from bench.bodies import Body, as_http
from bench.overload import open_load, percentile_ms
from bench.servers import Target

RATES = (1_000, 4_000, 8_000)
CONNECTIONS = 64


def constant_arrival(
    servers: dict[str, Callable[[], AbstractContextManager[Target]]], body: Body, seconds: float
) -> dict[str, dict[str, dict[str, float | None]]]:
    """By server and rate: p50 and p99 in ms from the moment a request was due, how many were answered well and
    otherwise, and the generator's share of its core (above 0.8 it is the generator that was measured)."""
    found: dict[str, dict[str, dict[str, float | None]]] = {}
    for name, start in servers.items():
        with start() as target:
            request = as_http(target.url, {**body.headers, **target.headers}, body.path.read_bytes())
            uvloop.run(open_load(target, RATES[0], 2, constant=True, connections=CONNECTIONS, request=request))
            for rate in RATES:
                spent = time.process_time()
                seen = uvloop.run(
                    open_load(target, rate, seconds, constant=True, connections=CONNECTIONS, request=request)
                )
                found.setdefault(name, {})[str(rate)] = {
                    "p50_ms": percentile_ms(seen.accepted, 0.5),
                    "p99_ms": percentile_ms(seen.accepted, 0.99),
                    "answered": len(seen.accepted),
                    "refused_or_unsent": len(seen.refused) + seen.unsent + seen.broken,
                    "generator_cpu_share": round((time.process_time() - spent) / seconds, 2),
                }
    return found
