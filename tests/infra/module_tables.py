"""Writes the tables of every module's README (requirements, resources, inputs, outputs; terraform-docs' form).

Usage: python tests/infra/module_tables.py [--check]
Everything between the two markers is replaced, the prose around it is kept; `--check` writes nothing and names each
README whose tables aren't what its sources say.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from infraproof.sources import Block, blocks
from infraproof.terraform import INFRA

BEGIN, END = "<!-- BEGIN_TF_DOCS -->", "<!-- END_TF_DOCS -->"


def folders() -> list[Path]:
    """The root module, bootstrap and the twelve modules."""
    return [INFRA, INFRA / "bootstrap", *sorted((INFRA / "modules").iterdir())]


def cell(text: str) -> str:
    """Text that stays in one table cell."""
    return " ".join(text.split()).replace("|", "\\|")


def table(title: str, head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """One titled Markdown table, or a sentence when it has no rows."""
    if not rows:
        return f"## {title}\n\nNo {title.lower()}.\n"
    lines = [f"## {title}", "", "| " + " | ".join(head) + " |", "|" + "|".join("---" for _ in head) + "|"]
    return "\n".join(lines + ["| " + " | ".join(map(cell, row)) + " |" for row in rows]) + "\n"


def text_of(block: Block, name: str) -> str:
    """A string argument without its quotes."""
    return block.attribute(name).strip('"').replace('\\"', '"')


def inputs(found: list[Block]) -> list[tuple[str, ...]]:
    """Name, description, type, default and whether it is required, by name."""
    rows = []
    for block in found:
        if block.kind == "variable":
            default = block.attribute("default")
            kind, shown = f"`{block.attribute('type') or 'any'}`", f"`{default}`" if default else "n/a"
            rows.append((block.labels[0], text_of(block, "description"), kind, shown, "no" if default else "yes"))
    return sorted(rows)


def requirements(found: list[Block]) -> list[tuple[str, ...]]:
    """Terraform's and the provider's version constraints."""
    text = "\n".join(block.text for block in found if block.kind == "terraform")
    rows = [("terraform", v) for v in re.findall(r'required_version\s*=\s*"([^"]+)"', text)]
    return rows + re.findall(r'(\w+)\s*=\s*\{\s*source\s*=\s*"[^"]+"\s*version\s*=\s*"([^"]+)"', text)


def tables(folder: Path) -> str:
    """The tables of one module."""
    found = [block for file in sorted(folder.glob("*.tf")) for block in blocks(file)]
    resources = sorted((".".join(b.labels), b.kind) for b in found if b.kind in ("resource", "data"))
    outputs = sorted((b.labels[0], text_of(b, "description")) for b in found if b.kind == "output")
    modules = sorted((b.labels[0], text_of(b, "source")) for b in found if b.kind == "module")
    parts = [
        table("Requirements", ("Name", "Version"), requirements(found)),
        *([table("Modules", ("Name", "Source"), modules)] if modules else []),
        table(
            "Resources", ("Name", "Type"), [(name, {"data": "data source"}.get(kind, kind)) for name, kind in resources]
        ),
        table("Inputs", ("Name", "Description", "Type", "Default", "Required"), inputs(found)),
        table("Outputs", ("Name", "Description"), outputs),
    ]
    return "\n".join(parts)


def rendered(folder: Path) -> str:
    """The README as it should be: its own prose, and the tables between the markers (at the end when it has none)."""
    file = folder / "README.md"
    text = file.read_text() if file.exists() else f"# {folder.name}\n"
    before, marker, rest = text.partition(BEGIN)
    after = rest.partition(END)[2] if marker else "\n"
    return f"{before.rstrip()}\n\n{BEGIN}\n{tables(folder)}{END}{after or chr(10)}"


def stale() -> list[Path]:
    """The READMEs whose tables are missing or out of date."""
    return [
        f / "README.md"
        for f in folders()
        if not (f / "README.md").exists() or (f / "README.md").read_text() != rendered(f)
    ]


def main(arguments: list[str]) -> int:
    """Write what is stale, or only name it with `--check`; 1 when a check found something."""
    found = stale()
    for file in found:
        sys.stdout.write(f"{file.relative_to(INFRA)}\n")
        if "--check" not in arguments:
            file.write_text(rendered(file.parent))
    return int("--check" in arguments and bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
