"""`python -m modelyard.runtimes.jail.inside ORDERS`: confines itself, tries to break out, then serves the model."""

from __future__ import annotations

import json
import sys

from modelyard.runtimes.jail.inside.confine import confine
from modelyard.runtimes.jail.inside.trials import run_trials


def main() -> None:
    """ORDERS is a JSON object; `channel` and `area` are descriptors in it. Never returns."""
    orders = json.loads(sys.argv[1])
    failed = confine(orders)
    trials = run_trials(orders)
    # Only now: numpy starts threads, and its import need not be trusted to be free of side effects.
    from modelyard.runtimes.jail.inside.serve import serve

    serve(orders, failed, trials)


if __name__ == "__main__":
    main()
