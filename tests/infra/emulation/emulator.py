"""The AWS emulator: started through TERRAFORM_CLI, addressed over HTTP, with every request it got on record."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infraproof.combinations import REGION

from emulation.relay import relaying

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0


class NoEmulatorError(RuntimeError):
    """This Terraform can't serve an emulator; the message says what to set."""


@dataclass(frozen=True)
class Emulator:
    """A running emulator of the AWS API on this machine."""

    url: str

    def environment(self) -> dict[str, str]:
        """The variables that send Terraform, its S3 backend and boto3 to the emulator."""
        return {
            "MOTO_URL": self.url,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def requests(self) -> list[dict[str, Any]]:
        """Every request so far: service, action, status, who answered, and the body of writes."""
        with urllib.request.urlopen(f"{self.url}/_shim/log", timeout=START_TIMEOUT_S) as answer:
            entries: list[dict[str, Any]] = json.loads(answer.read())
        return entries


@contextmanager
def serving(cli: str, folder: Path) -> Iterator[Emulator]:
    """Start `cli --serve 0`, wait until it prints its address, and stop it by its process at the end."""
    with (folder / "emulator.log").open("w") as log:
        process = subprocess.Popen(
            [cli, "--serve", "0"], stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ}
        )
        try:
            with relaying(address_of(process)) as url:
                yield Emulator(url)
        finally:
            process.terminate()
            process.wait(STOP_TIMEOUT_S)
            if process.stdout is not None:
                process.stdout.close()


def address_of(process: subprocess.Popen[str]) -> str:
    """The first line the server prints; NoEmulatorError when it ends instead."""
    assert process.stdout is not None
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        line = process.stdout.readline().strip()
        if line.startswith("http"):
            return line
        if process.poll() is not None:
            break
    raise NoEmulatorError("TERRAFORM_CLI must name a Terraform that serves an AWS emulator with --serve PORT")
