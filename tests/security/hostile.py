"""What strangers write where a name, an id or a value belongs."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

TRAVERSAL = (
    "..", ".", "...", "../simple", "../../etc/passwd", "/etc/passwd", "//simple", "simple/..", "simple/../simple",
    "..\\simple", "C:\\windows", "\\\\host\\share", "~", "~root", "$HOME", "`id`", "$(id)", ";id", "|id", "&id",
    "simple;x", "simple?x", "simple#x", "simple%", "%", "%%", "*", "?", "[a]", "simple*", "file:///etc/passwd",
    "s3://bucket/x", "http://127.0.0.1/x",
)  # fmt: skip
SPELLINGS = (
    "simple ", " simple", "simple.", ".simple", "-simple", "simple-", "_simple", "si mple", "simple\t", "sim\nple",
    "simple\r\nx: y", "simple\x00", "\x00", "simple\x7f", "\x1b[31msimple", "simple\u200b", "\ufeffsimple",
    "\u202esimple", "simple\u2028", "simple\u2029", "\u0455imple", "ｓｉｍｐｌｅ", "simplé", "sımple", "ﬁmple",
    "a" * 129, "a" * 300, "a" * 4000, "é" * 200, '"simple"', "'simple'", "<simple>", "{model}", "${model}", "{{7*7}}",
    '{"a": 1}', "a..b", "simple:predict:x", "simple@1", "simple,simple", "simple=1", "simple+1",
)  # fmt: skip
NAMES = TRAVERSAL + SPELLINGS
"""No model, version, endpoint, key or client can be called so."""

RAW = (
    "%2e%2e", "%2e%2e%2fsimple", "..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "..%5csimple", "%252e%252e",
    "%c0%ae%c0%ae",
    "%c0%af", "%e0%80%ae", "%f0%80%80%ae", "%ff%fe", "%ed%a0%80", "%00", "simple%00", "simple%00.txt", "%0d%0ax:%20y",
    "%", "%2", "%zz", "%u002e", "simple%20", "%E2%80%AE", "%ef%bb%bfsimple", "simple%2f", "simple%3bx",
)  # fmt: skip
"""Segments of a path as they are written on the wire: doubled, overlong and broken encodings."""

EXISTING_ODDLY = ("CON", "nul", "aux.txt", "SIMPLE", "Simple", "simple1", "0", "NaN", "null", "undefined", "true")
"""Good names of nothing: 404."""

SQL = (
    "'", "''", '"', "\\", "\\'", "';--", "' OR '1'='1", "' OR 1=1--", '" OR ""="', "1 OR 1=1", "1) OR (1=1",
    "'; DROP TABLE keys; --", "x'; DELETE FROM predictions; --", "' UNION SELECT 1,2,3--",
    "' UNION SELECT secret_hash FROM keys--", "1; ATTACH DATABASE '/tmp/x' AS y", "'||(SELECT 1)||'",
    "' AND randomblob(1000000000)--", "1' AND (SELECT 1 FROM pg_sleep(5))--", "'; WAITFOR DELAY '0:0:5'--",
    "%' ESCAPE '!", "%", "_", "*", "CAST(1 AS TEXT)", "0x27", "CHAR(39)", "/*", "*/", "--", "#", ";", "?", ":name",
    "%(name)s", "{0}", "$1", "' AND 1=CONVERT(int,@@version)--", "NULL", "';PRAGMA user_version=9;--", "1e309", "-1",
    "9223372036854775808", "' GLOB '*", "1' ORDER BY 99--", "') RETURNING *--", "\u02bc OR 1=1", "＇ OR 1=1",
)  # fmt: skip
"""What changes the meaning of a statement where it is built from text."""

FORGED = '{"event": "key.created", "level": "info", "forged": true}'
LINES = (
    f"\n{FORGED}", f"\r\n{FORGED}\r\n", f"\u2028{FORGED}", f"\u2029{FORGED}", f"\x85{FORGED}", f"\x0b{FORGED}",
    f"\x0c{FORGED}", f"\x1c{FORGED}", f'"}}\n{FORGED}', '", "forged": true, "x": "', "\\", '\\"', "\x1b[2J\x1b[31mred",
    "\x1b]0;title\x07", "\x00\x01\x02", "\x7f\x9b31m", "\u202eright to left", "\ud800", "a" * 1_000_000, "%n%s%x",
    "\x08\x08\x08",
)  # fmt: skip
"""What starts a line of its own in a log that is read by lines, colours a terminal, or fills a disk."""


def segments(names: tuple[str, ...] = NAMES) -> Iterator[str]:
    """Each name as one percent-encoded segment of a path, then those that are hostile by their encoding."""
    for name in names:
        yield quote(name.encode("utf-8", "surrogatepass"), safe="")
    if names is NAMES:
        yield from RAW
