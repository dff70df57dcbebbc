"""Applies a stack from an empty account on the emulator, in the documented steps, and keeps what happened."""

from __future__ import annotations

import base64
import json
import shutil
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infraproof.combinations import REGION, Stack
from infraproof.plan import without_keys
from infraproof.terraform import INFRA, LOCAL_BACKEND, Completed, Workspace

from emulation.created import create_call
from emulation.drift import drift, forgotten
from emulation.emulator import Emulator
from emulation.readback import Account

PARALLELISM = "-parallelism=30"
RACES = ("use of closed network connection", "dictionary changed size during iteration", "connection reset by peer")
RETRIES = 2
#: The emulator forgets `newer_noncurrent_versions`, for which the provider waits in vain: bootstrap's lifecycle is
#: applied without it, by an override file beside the copy.
LIFECYCLE_OVERRIDE = """
resource "aws_s3_bucket_lifecycle_configuration" "state" {
  rule {
    id     = "old-states"
    status = "Enabled"

    filter {}

    noncurrent_version_expiration {
      noncurrent_days = 90
    }
  }
}
"""
#: Where the emulator lacks a call, the other value of a variable is applied; plans with checks and a mutation prove the
#: lacking one (emulation/proofs.py lists it). Protection is off so that a test can clean up after itself.
EMULATED: dict[str, Any] = {
    "region": REGION,
    "valkey": "none",
    "account": {"instance_defaults": "exists", "access_analyzer": "exists", "guardduty": "exists"},
    "backup": {"restore_test": False},
    "deletion_protection": False,
}


@dataclass(frozen=True)
class Instance:
    """One managed resource instance of a state: its address, its type, its values and whether a call made it."""

    address: str
    type: str
    values: dict[str, Any]
    schema_only: bool


@dataclass
class Applied:
    """A stack on the emulator: every step's time in seconds, its state and the requests that made it."""

    stack: Stack
    emulator: Emulator
    workspace: Workspace
    seconds: dict[str, float] = field(default_factory=dict)
    drift: list[str] = field(default_factory=lambda: ["not planned again"])
    forgotten: list[str] = field(default_factory=list)
    retries: int = 0
    instances: list[Instance] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)

    def unproven(self) -> dict[str, str]:
        """Address -> reason, for each resource that no create call on the emulator made."""
        reasons = {
            i.address: "schema only: the emulating provider sent no call" for i in self.instances if i.schema_only
        }
        real = [i for i in self.instances if not i.schema_only]
        for kind, count in Counter(i.type for i in real).items():
            call = create_call(kind)
            if call is None:
                reasons.update({i.address: f"no create call is known for {kind}" for i in real if i.type == kind})
                continue
            seen = sum(1 for entry in self.requests if answered(entry) and call.fullmatch(named(entry)))
            if seen < count:
                text = f"{seen} of {count} create calls on record"
                reasons.update({i.address: text for i in real if i.type == kind})
        return reasons

    def left(self) -> list[str]:
        """What is still in the state after a destroy."""
        return state_addresses(self.workspace)


def answered(entry: dict[str, Any]) -> bool:
    """True when the emulator took the request."""
    return int(entry["status"]) < 300


def named(entry: dict[str, Any]) -> str:
    """`service action` of a request, as the create calls are written."""
    return f"{entry['service']} {entry['action']}"


def copied(stack: Stack, emulator: Emulator, folder: Path, cli: str) -> Applied:
    """A copy of the sources for one stack, with what the emulator needs beside them."""
    target = folder / "infra"
    shutil.copytree(INFRA, target, ignore=shutil.ignore_patterns(".terraform", ".terraform.lock.hcl", "*.tfstate*"))
    (target / "bootstrap" / "emulator_override.tf").write_text(LIFECYCLE_OVERRIDE)
    return Applied(stack.but("emulated", **EMULATED), emulator, Workspace(target, cli, emulator.environment()))


def bootstrap(applied: Applied) -> None:
    """Apply bootstrap/ to the empty account and write down where the state goes."""
    workspace = applied.workspace
    workspace.init(chdir="bootstrap")
    arguments = ("-auto-approve", "-input=false", "-no-color", PARALLELISM, f"-var=region={REGION}")
    done = workspace.run("apply", *arguments, chdir="bootstrap")
    applied.seconds["bootstrap"] = done.checked(f"bootstrap of {applied.stack.name}").seconds
    backend = workspace.run("output", "-raw", "backend_config", chdir="bootstrap").checked("bootstrap's output").output
    (workspace.path / "backend.hcl").write_text(backend)
    # The emulator reads policies without their conditions: "deny unless TLS" would deny everything, so it is taken off
    # the state bucket after it was applied.
    bucket = workspace.run("output", "-raw", "state_bucket", chdir="bootstrap").checked("bootstrap's output").output
    Account(applied.emulator).client("s3").delete_bucket_policy(Bucket=bucket)


def connect(applied: Applied, *arguments: str) -> None:
    """Initialise the stack with the state bucket that bootstrap made."""
    # Only because the emulator answers under one host name: buckets as a path instead of a host.
    applied.workspace.init("-backend-config=backend.hcl", "-backend-config=use_path_style=true", *arguments)


def apply(applied: Applied, label: str, **variables: Any) -> None:
    """One `terraform apply` with the stack's variables and these changes, its time under `label`."""
    done = patiently(applied, lambda: command(applied, "apply", "-auto-approve", PARALLELISM, **variables))
    applied.seconds[label] = done.checked(f"{label} of {applied.stack.name}").seconds


def patiently(applied: Applied, run: Callable[[], Completed]) -> Completed:
    """Run a command; again, at most twice, when it failed by the emulator's own races; how often is kept.

    A dictionary changed under its reader, or a lost connection, is met as an owner meets the latter.
    """
    done = run()
    for _ in range(RETRIES):
        if not raced(done):
            break
        applied.retries += 1
        done = run()
    return done


def command(applied: Applied, verb: str, *arguments: str, **variables: Any) -> Completed:
    """Run a Terraform command that takes the stack's variables."""
    file = applied.workspace.variable_file({**applied.stack.variables, **variables})
    return applied.workspace.run(verb, "-json", "-input=false", *arguments, *applied.stack.arguments(), file)


def apply_from_nothing(stack: Stack, emulator: Emulator, folder: Path, cli: str) -> Applied:
    """The documented way: bootstrap, apply without an image, apply with one; then plan again and read what there is."""
    applied = copied(stack, emulator, folder, cli)
    bootstrap(applied)
    connect(applied)
    apply(applied, "apply without image", image=None)
    apply(applied, "apply with image")
    observe(applied)
    return applied


def apply_at_once(stack: Stack, emulator: Emulator, folder: Path, cli: str) -> Applied:
    """As apply_from_nothing, but bootstrap and the first apply wait at the same time; then the state moves in.

    Until the bucket is there the state lies in a file, as an owner has it who starts before a backend is decided on.
    """
    applied = copied(stack, emulator, folder, cli)
    override = applied.workspace.path / "backend_override.tf"
    override.write_text(LOCAL_BACKEND)
    applied.workspace.init()
    with ThreadPoolExecutor(1, thread_name_prefix="bootstrap") as pool:
        begun = pool.submit(bootstrap, applied)
        apply(applied, "apply without image", image=None)
        begun.result()
    override.unlink()
    connect(applied, "-migrate-state", "-force-copy")
    apply(applied, "apply with image")
    observe(applied)
    return applied


def observe(applied: Applied) -> None:
    """Plan again; keep what would change, the state, the outputs and every request."""
    again, plan = planned_again(applied)
    applied.requests = applied.emulator.requests()
    applied.drift, applied.forgotten = drift(plan, applied.requests), forgotten(plan, applied.requests)
    applied.seconds["second plan"] = again.seconds
    applied.instances = instances(applied.workspace)
    shown = applied.workspace.run("output", "-json").checked("outputs").output
    applied.outputs = {name: body["value"] for name, body in json.loads(shown[shown.index("{") :]).items()}


def raced(done: Completed) -> bool:
    """True when a command failed by nothing but the emulator's own races."""
    return done.code != 0 and bool(done.errors) and all(any(race in error for race in RACES) for error in done.errors)


def planned_again(applied: Applied) -> tuple[Completed, dict[str, Any]]:
    """Plan the stack against what it applied; TerraformError when it can't be planned."""
    file = applied.workspace.variable_file(applied.stack.variables)
    plan: dict[str, Any] = {}

    def run() -> Completed:
        done, planned = applied.workspace.plan(*applied.stack.arguments(), file)
        plan.update(planned)
        return done

    done = patiently(applied, run)
    return done.checked(f"second plan of {applied.stack.name}"), plan


def destroy(applied: Applied) -> Completed:
    """Destroy the stack; the time is kept under `destroy`."""
    done = patiently(applied, lambda: command(applied, "destroy", "-auto-approve", PARALLELISM))
    applied.seconds["destroy"] = done.seconds
    return done


def pulled(workspace: Workspace) -> dict[str, Any]:
    """The state as Terraform keeps it, with private data."""
    text = workspace.run("state", "pull").checked("state pull").output
    loaded: dict[str, Any] = json.loads(text[text.index("{") :])
    return loaded


def state_addresses(workspace: Workspace) -> list[str]:
    """The managed resources in the state, without keys."""
    return [without_keys(instance.address) for instance in instances(workspace)]


def instances(workspace: Workspace) -> list[Instance]:
    """Every managed AWS instance of the state with the mark that the emulating provider leaves when it sent no call."""
    found = []
    for resource in pulled(workspace).get("resources", []):
        if resource["mode"] != "managed" or not resource["type"].startswith("aws_"):
            continue  # terraform_data is Terraform's own: no call makes it
        prefix = f"{resource['module']}." if "module" in resource else ""
        for item in resource["instances"]:
            key = f"[{json.dumps(item['index_key'])}]" if "index_key" in item else ""
            private = base64.b64decode(item.get("private") or "").decode(errors="replace")
            address = f"{prefix}{resource['type']}.{resource['name']}{key}"
            found.append(Instance(address, resource["type"], item["attributes"], "schema-only" in private))
    return found
