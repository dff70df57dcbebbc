"""The sources themselves: formatted, valid, tested module by module, documented, and wired as the design says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from infraproof.catalogue import EVERY_MODULE
from infraproof.combinations import WITH_IMAGE
from infraproof.planner import Planner
from infraproof.results import Results
from infraproof.sources import blocks, tree_blocks
from infraproof.terraform import INFRA, Workspace, copy_of
from module_tables import stale

MODULES = INFRA / "modules"
ROOT_VARIABLES = 40


@pytest.fixture(scope="module")
def workspace(terraform_cli: str, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A copy of infra/ with its tests, initialised."""
    return copy_of(INFRA, tmp_path_factory.mktemp("modules") / "infra", terraform_cli)


def test_sources_are_formatted(workspace: Workspace) -> None:
    """`terraform fmt -check` names no file."""
    done = workspace.run("fmt", "-check", "-recursive", "-diff")
    assert done.code == 0, done.output


def test_stack_is_valid(workspace: Workspace) -> None:
    """`terraform validate` finds neither an error nor a warning in the stack and all modules it calls."""
    done = workspace.run("validate", "-json")
    report = json.loads(done.output[done.output.index("{") :])
    found = [f"{d['severity']}: {d['summary']} {d.get('detail', '')}" for d in report["diagnostics"]]
    # The Terraform under test may announce that it uses a provider from a folder; that isn't the sources' doing.
    assert [text for text in found if "development overrides" not in text] == []


def test_bootstrap_is_valid(workspace: Workspace) -> None:
    """`terraform validate` finds no error in bootstrap/."""
    workspace.init("-backend=false", chdir="bootstrap")
    workspace.run("validate", "-json", chdir="bootstrap").checked("validate bootstrap")


@pytest.fixture(scope="module")
def runs(workspace: Workspace) -> dict[str, dict[str, str]]:
    """One `terraform test` of everything: module -> run -> status, or the error where a run failed."""
    done = workspace.run("test", "-json")
    lines = [json.loads(line) for line in done.output.splitlines() if line.startswith("{")]
    found: dict[str, dict[str, str]] = {module: {} for module in EVERY_MODULE}
    for line in lines:
        module, run = Path(line.get("@testfile", "")).name.partition(".")[0], line.get("@testrun", "")
        if line["type"] == "test_run" and line["test_run"].get("progress", "complete") == "complete":
            found.setdefault(module, {}).setdefault(run, line["test_run"]["status"])
        elif line["type"] == "diagnostic" and line["diagnostic"]["severity"] == "error":
            found.setdefault(module, {})[run] = f"{line['diagnostic']['summary']}: {line['diagnostic']['detail']}"
    return found


@pytest.mark.parametrize("module", EVERY_MODULE)
def test_module_passes_its_own_tests(module: str, runs: dict[str, dict[str, str]], results: Results) -> None:
    """`terraform test` of the module, with a mocked provider, passes, refusals included."""
    text = "".join(file.read_text() for file in (INFRA / "tests").glob(f"{module}.tftest.hcl"))
    failed = {run: status for run, status in runs[module].items() if status != "pass"}
    results.add("modules", module, tests=len(runs[module]), failed=len(failed))
    assert failed == {}
    assert sorted(runs[module]) == sorted(re.findall(r'^run "(\w+)"', text, re.MULTILINE)) != []


@pytest.mark.parametrize("module", EVERY_MODULE)
def test_module_tests_its_refusals(module: str) -> None:
    """The module's tests expect at least one failure: what it refuses is tested, too."""
    text = "".join(file.read_text() for file in (INFRA / "tests").glob(f"{module}*.tftest.hcl"))
    assert "expect_failures" in text


def test_every_variable_is_described_and_typed() -> None:
    """Every variable of every module has a type and a description, every output a description."""
    bare = []
    for block in tree_blocks(INFRA):
        wanted = {"variable": ("type", "description"), "output": ("description",)}.get(block.kind, ())
        bare += [f"{block.file}:{block.line} {name}" for name in wanted if not block.attribute(name)]
    assert bare == []


def test_root_has_few_variables_and_sentences() -> None:
    """At most forty root variables, and every validation's message is a sentence that names its variable."""
    found = [block for file in sorted(INFRA.glob("variables*.tf")) for block in blocks(file)]
    variables = [block for block in found if block.kind == "variable"]
    messages = {
        block.labels[0]: re.findall(r'error_message\s*=\s*"((?:[^"\\]|\\.)*)"', block.text) for block in variables
    }
    assert len(variables) <= ROOT_VARIABLES
    assert [f"{name}: {text}" for name, texts in messages.items() for text in texts if name not in text] == []


def test_main_only_wires_the_twelve_modules() -> None:
    """main.tf holds the twelve modules and nothing else."""
    found = blocks(INFRA / "main.tf")
    assert {block.kind for block in found} == {"module"}
    assert sorted(block.labels[0] for block in found) == sorted(EVERY_MODULE)


def test_modules_have_the_same_files() -> None:
    """Every module has main.tf, variables.tf, outputs.tf, versions.tf and a README, and no provider of its own."""
    wanted = ("main.tf", "variables.tf", "outputs.tf", "versions.tf", "README.md")
    missing = [
        f"{module}/{name}" for module in EVERY_MODULE for name in wanted if not (MODULES / module / name).exists()
    ]
    assert missing == []
    assert [b.file for b in tree_blocks(MODULES) if b.kind == "provider"] == []


def test_no_module_counts_over_lists() -> None:
    """`count` is only ever a switch (0 or 1): lists are spread by for_each, whose keys stay when one goes."""
    counted = [(b, b.attribute("count")) for b in tree_blocks(INFRA) if b.kind in ("resource", "module", "data")]
    assert [
        f"{b.file.name}:{b.line} {text}" for b, text in counted if "length(" in text and "? 1 : 0" not in text
    ] == []


def test_every_depends_on_says_why() -> None:
    """A `depends_on` has a comment on the lines before it or on its own."""
    bare = []
    for file in sorted(INFRA.rglob("*.tf")):
        lines = file.read_text().splitlines()
        for number, line in enumerate(lines):
            if re.match(r"\s*depends_on\b", line) and "#" not in "".join(lines[max(0, number - 3) : number + 1]):
                bare.append(f"{file.relative_to(INFRA)}:{number + 1}")
    assert bare == []


def test_readme_tables_are_generated() -> None:
    """The tables in every README are what `make infra-docs` writes from the sources."""
    assert [str(file.relative_to(INFRA)) for file in stale()] == []


def test_functions_are_packed_from_their_sources() -> None:
    """The committed zips hold exactly the reviewed sources."""
    program = [sys.executable, str(INFRA / "package_functions.py"), "--check"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_no_secret_is_in_a_plan(planner: Planner) -> None:
    """No plan holds a password or a key: secrets are managed by AWS or written later by the owner."""
    for stack in WITH_IMAGE:
        plan = planner.plan(stack).plan
        held = [r.address for r in plan.resources for name in ("password", "secret_string") if r.get(name)]
        assert held == []


def test_paths_exist() -> None:
    """The layout is the one of the mission document."""
    names = ("main.tf", "provider.tf", "versions.tf", "variables.tf", "outputs.tf", "backend.tf", "README.md")
    presets = ("small.tfvars", "expected.tfvars", "lambda.tfvars")
    paths = [INFRA / name for name in names] + [INFRA / "presets" / name for name in presets]
    assert [str(path) for path in paths if not Path(path).exists()] == []
