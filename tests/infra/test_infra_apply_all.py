"""The long form: every combination and every preset applied from an empty account, without drift, and destroyed."""

from __future__ import annotations

from pathlib import Path

import pytest
from emulation.applying import apply_from_nothing, destroy
from emulation.emulator import NoEmulatorError, serving
from emulation.proofs import record_applied, unexpected_leftovers
from emulation.readback import Account
from infraproof.combinations import PRESET_STACKS, WITH_IMAGE, Stack
from infraproof.results import Results

pytestmark = pytest.mark.infra_long


@pytest.mark.parametrize("stack", WITH_IMAGE + PRESET_STACKS, ids=lambda stack: stack.name)
def test_every_stack_applies_without_drift_and_goes(
    stack: Stack, terraform_cli: str, tmp_path: Path, results: Results
) -> None:
    """From an empty account: bootstrap, two applies, an empty plan, every resource made by a call, a clean destroy."""
    try:
        with serving(terraform_cli, tmp_path) as emulator:
            applied = apply_from_nothing(stack, emulator, tmp_path, terraform_cli)
            record_applied(results, applied)
            account = Account(emulator)
            closed = all(all(account.bucket(name)["public_access"].values()) for name in account.buckets())
            gone = destroy(applied)
            left = applied.left() if gone.code == 0 else ["not destroyed"]
    except NoEmulatorError as reason:
        pytest.skip(str(reason))
    results.add("applied", applied.stack.name, destroy_s=round(gone.seconds), destroy_clean=left == [])
    assert applied.drift == 0, f"the second plan wants to change:\n{applied.drift_text}"
    assert unexpected_leftovers(applied.unproven()) == {}
    assert closed
    gone.checked("destroy")
    assert left == []
