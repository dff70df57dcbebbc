"""A stack's whole life on an emulator of its own: applied from nothing, read back, destroyed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from infraproof.combinations import Stack
from infraproof.terraform import Completed

from emulation.applying import Applied, apply_from_nothing, destroy
from emulation.emulator import serving
from emulation.readback import Account

#: A stack mostly waits (for a database, a load balancer, a lifecycle), so three share two cores.
AT_ONCE = 3


@dataclass(frozen=True)
class Journey:
    """What is left to say when the emulator is gone."""

    applied: Applied
    closed: bool
    rotating: bool
    gone: Completed
    left: tuple[str, ...]


def journey(stack: Stack, folder: Path, cli: str) -> Journey:
    """Start an emulator, apply a stack from an empty account, read it back, destroy it; else TerraformError."""
    folder.mkdir()
    with serving(cli, folder) as emulator:
        applied = apply_from_nothing(stack, emulator, folder, cli)
        account = Account(emulator)
        names = account.buckets()
        closed = bool(names) and all(all(account.bucket(name)["public_access"].values()) for name in names)
        rotating = all(key["rotates"] for key in account.own_keys())
        gone = destroy(applied)
        left = tuple(applied.left()) if gone.code == 0 else ("not destroyed",)
    return Journey(applied, closed, rotating, gone, left)
