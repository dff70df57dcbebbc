"""The page about the audit log says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from modelyard.audit.event import AuditEvent
from modelyard.audit.vocabulary import AuditAction

ROOT = Path(__file__).parent.parent.parent.parent
PAGE = (ROOT / "docs/concepts/audit.md").read_text()


def test_the_script_on_the_page_is_the_example() -> None:
    """The page shows the very file that the journey runs, but for its docstring."""
    (shown,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    program = (ROOT / "examples/verify_audit.py").read_text()
    assert program.partition('"""\n\n')[2] == shown
    assert len(shown.splitlines()) <= 20


def test_every_action_and_field_is_on_the_page() -> None:
    """Nothing of the vocabulary is missing, nothing is invented; problems are those that the code names."""
    named = set(re.findall(r"`([a-z]+:[a-z]+)`", PAGE)) - {"subject:action", "kind:name"}
    assert named == {str(action) for action in AuditAction}
    assert all(f"`{field}`" in PAGE for field in AuditEvent.__struct_fields__)
    sources = [*(ROOT / "src/modelyard/audit").glob("*.py"), *(ROOT / "src/modelyard/storage/sql/audit").glob("*.py")]
    codes = {code for path in sources for code in re.findall(r'found\(\s*"([a-z_]+)"', path.read_text())}
    assert codes == set(re.findall(r"^\| `([a-z]+_[a-z]+)` \|", PAGE, re.MULTILINE)) - {"key_id", "request_id"}
