"""The size budgets of the house style: functions, files, folders. Exit status 1 names what is over."""

from __future__ import annotations

import ast
import statistics
import sys
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "modelyard"
STEPS = SOURCE / "storage" / "sql" / "migrations" / "versions"
"""A file for each step of the schema, in one folder, as Alembic reads them: there are more with every release."""
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_MODULES = 400, 60, 10
MEDIAN_FUNCTION_LINES, P90_FUNCTION_LINES = 8, 30
BANNED = {"utils", "helpers", "common", "manager"}


def function_lines(tree: ast.AST) -> list[tuple[str, int]]:
    """Name and length in lines of every function."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [(node.name, (node.end_lineno or node.lineno) - node.lineno + 1) for node in functions]


def main() -> int:
    """Prints the figures and what breaks them."""
    broken: list[str] = []
    lengths: list[int] = []
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text()
        name = path.relative_to(SOURCE.parent)
        if path.stem in BANNED:
            broken.append(f"{name}: the name says nothing")
        if (lines := text.count("\n")) > MAX_FILE_LINES:
            broken.append(f"{name}: {lines} lines, {MAX_FILE_LINES} is the most")
        for function, size in function_lines(ast.parse(text)):
            lengths.append(size)
            if size > MAX_FUNCTION_LINES:
                broken.append(f"{name}: {function} has {size} lines, {MAX_FUNCTION_LINES} is the most")
    for folder in {path.parent for path in SOURCE.rglob("*.py")}:
        modules = [path for path in folder.glob("*.py") if path.stem != "__init__"]
        if folder not in (SOURCE, STEPS) and len(modules) > MAX_MODULES:
            broken.append(f"{folder.relative_to(SOURCE.parent)}: {len(modules)} modules, {MAX_MODULES} is the most")
    median, p90 = statistics.median(lengths), statistics.quantiles(lengths, n=10)[-1]
    if median > MEDIAN_FUNCTION_LINES or p90 > P90_FUNCTION_LINES:
        broken.append(f"functions: median {median}, p90 {p90}")
    print(f"{len(lengths)} functions: median {median:g} lines, p90 {p90:g}")
    print("\n".join(broken))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
