"""Reads Terraform source text: blocks by brace matching, for what a plan doesn't show (lifecycle, comments)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

SOURCE_SUFFIXES = {".tf", ".tfvars", ".json", ".py", ".hcl", ".tftpl", ".zip", ".yaml"}


@dataclass(frozen=True)
class Block:
    """One top-level block: its kind and labels (`resource`, `aws_ecs_service`, `this`), its text and its place."""

    kind: str
    labels: tuple[str, ...]
    text: str
    file: Path
    line: int

    def inner(self, kind: str) -> str:
        """The text of the first nested block of this kind, or an empty string."""
        match = re.search(rf"^\s*{re.escape(kind)}\s*{{", self.text, re.MULTILINE)
        return "" if match is None else self.text[match.start() : closing_brace(self.text, match.end() - 1) + 1]

    def attribute(self, name: str) -> str:
        """The source text of one argument of the block itself, on one line; empty when it isn't written."""
        inside = self.text[self.text.index("{") + 1 : -1]
        match = re.search(rf"^  {re.escape(name)}\s*=\s*", inside, re.MULTILINE)
        return "" if match is None else " ".join(expression_at(inside, match.end()).split())


def expression_at(text: str, start: int) -> str:
    """The expression that begins at `start`: to the end of the line on which all its brackets are closed."""
    index, depth = start, 0
    while index < len(text):
        char = text[index]
        if char == '"':
            index = end_of_string(text, index)
        elif char == "#":
            index = end_of_line(text, index) - 1
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif char == "\n" and depth == 0:
            break
        index += 1
    return text[start:index]


HEADER = re.compile(r'^(\w+)((?:\s+"[^"]+")*)\s*\{', re.MULTILINE)


def closing_brace(text: str, opening: int) -> int:
    """The index of the brace that closes the one at `opening`, skipping strings and comments."""
    depth, index = 0, opening
    while index < len(text):
        char = text[index]
        if char == '"':
            index = end_of_string(text, index)
        elif char == "#" or text.startswith("//", index):
            index = end_of_line(text, index)
        elif char in "{}":
            depth += 1 if char == "{" else -1
            if depth == 0:
                return index
        index += 1
    raise ValueError("unbalanced braces")


def end_of_string(text: str, opening: int) -> int:
    """The index of the quote that closes the string opened at `opening`; interpolations may hold strings."""
    index, depth = opening + 1, 0
    while index < len(text):
        if text[index] == "\\":
            index += 1
        elif text.startswith(("${", "%{"), index):
            depth, index = depth + 1, index + 1
        elif depth and text[index] == "{":
            depth += 1
        elif depth and text[index] == "}":
            depth -= 1
        elif depth and text[index] == '"':
            index = end_of_string(text, index)
        elif text[index] == '"':
            return index
        index += 1
    raise ValueError("unterminated string")


def end_of_line(text: str, start: int) -> int:
    """The index of the line break after `start`, or the end of the text."""
    found = text.find("\n", start)
    return len(text) if found < 0 else found


def blocks(file: Path) -> list[Block]:
    """Every top-level block of one .tf file, in order."""
    text, found, position = file.read_text(), [], 0
    while (match := HEADER.search(text, position)) is not None:
        position = closing_brace(text, match.end() - 1) + 1
        labels = tuple(re.findall(r'"([^"]+)"', match.group(2)))
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(match.group(1), labels, text[match.start() : position], file, line))
    return found


def tree_blocks(root: Path) -> tuple[Block, ...]:
    """Every top-level block of every .tf file below `root`, without the stack's own test files."""
    return tuple(block for file in sorted(root.rglob("*.tf")) for block in blocks(file))


def tree_digest(root: Path) -> str:
    """SHA-256 over names and contents of the sources below `root`: the key under which plans are kept."""
    digest = hashlib.sha256()
    for file in sorted(path for path in root.rglob("*") if path.suffix in SOURCE_SUFFIXES and path.is_file()):
        if ".terraform" in file.parts or file.name == ".checkov.yaml":
            continue
        digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()
