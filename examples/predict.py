"""One prediction with Python's standard library alone: prints the class and its probability.

MODELYARD_URL=http://127.0.0.1:8080 MODELYARD_KEY=mdy_… python predict.py
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request

ITEM = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}


def main() -> None:
    """Asks, and shows what came; a refusal is shown with its code."""
    request = urllib.request.Request(
        f"{os.environ['MODELYARD_URL']}/v1/models/iris/predictions",
        data=json.dumps({"items": [ITEM]}).encode(),
        headers={"x-api-key": os.environ["MODELYARD_KEY"], "content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            output = json.load(answer)["results"][0]["output"]
    except urllib.error.HTTPError as error:
        refusal = json.load(error)
        sys.exit(f"{error.code} {refusal['code']}: {refusal['error']}")
    print(f"{output['label_name']} {output['probabilities'][output['label']]:.4f}")


if __name__ == "__main__":
    main()
