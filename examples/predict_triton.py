"""One prediction with NVIDIA's client for the Open Inference Protocol: prints the class and its probability.

MODELYARD_URL=http://127.0.0.1:8080 MODELYARD_KEY=mdy_… python predict_triton.py
Needs `pip install 'tritonclient[http]'`. For https the trusted certificates are those of SSL_CERT_FILE.
"""

from __future__ import annotations

import os

import numpy as np
import tritonclient.http as triton

LABELS = ("setosa", "versicolor", "virginica")


def connect(url: str) -> triton.InferenceServerClient:
    """The client; it wants the address without its scheme."""
    scheme, _, address = url.partition("://")
    trusted = {"ca_certs": os.environ["SSL_CERT_FILE"]} if "SSL_CERT_FILE" in os.environ else {}
    return triton.InferenceServerClient(address, ssl=scheme == "https", ssl_options=trusted)


def main() -> None:
    """Sends the row in binary, and reads the answer in binary."""
    rows = triton.InferInput("X", [1, 4], "FP32")
    rows.set_data_from_numpy(np.array([[5.1, 3.5, 1.4, 0.2]], np.float32))
    client = connect(os.environ["MODELYARD_URL"])
    answer = client.infer("iris", [rows], headers={"x-api-key": os.environ["MODELYARD_KEY"]})
    client.close()
    (label,), (probabilities,) = answer.as_numpy("label"), answer.as_numpy("probabilities")
    print(f"{LABELS[label]} {probabilities[label]:.4f}")


if __name__ == "__main__":
    main()
