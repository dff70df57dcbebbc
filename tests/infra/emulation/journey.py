"""A stack's whole life on an emulator of its own: applied from nothing, read back, destroyed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from infraproof.combinations import Stack
from infraproof.terraform import Completed

from emulation.applying import Applied, apply_from_nothing, destroy
from emulation.emulator import serving
from emulation.readback import Account
from emulation.release import changes_after_release, release

#: A stack mostly waits (for a database, a load balancer, a lifecycle), so four share two cores.
AT_ONCE = 4


@dataclass(frozen=True)
class Journey:
    """What is left to say when the emulator is gone."""

    applied: Applied
    closed: bool
    rotating: bool
    runs: str
    after_release: tuple[str, ...]
    gone: Completed
    left: tuple[str, ...]


def with_a_zone(stack: Stack, account: Account) -> Stack:
    """The stack with the zone that its domain lives in, made beforehand as an owner has it; else the stack itself."""
    domain = stack.variables.get("domain")
    if domain is None:
        return stack
    parent = domain["name"].partition(".")[2]
    zone = account.client("route53").create_hosted_zone(Name=parent, CallerReference=stack.name)["HostedZone"]["Id"]
    return replace(stack, variables={**stack.variables, "domain": {**domain, "zone_id": zone.rpartition("/")[2]}})


def journey(stack: Stack, folder: Path, cli: str) -> Journey:
    """Apply a stack from an empty account, read it back, release, destroy it; TerraformError when a step fails."""
    folder.mkdir()
    with serving(cli, folder) as emulator:
        stack = with_a_zone(stack, Account(emulator))
        applied = apply_from_nothing(stack, emulator, folder, cli)
        account = Account(emulator)
        names = account.buckets()
        closed = bool(names) and all(all(account.bucket(name)["public_access"].values()) for name in names)
        rotating = all(key["rotates"] for key in account.own_keys())
        runs, changed = release(applied), tuple(changes_after_release(applied))
        gone = destroy(applied)
        left = tuple(applied.left()) if gone.code == 0 else ("not destroyed",)
    return Journey(applied, closed, rotating, runs, changed, gone, left)
