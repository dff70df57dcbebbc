"""`modelyard audit`: who changed what, and whether the log of it is whole."""

from __future__ import annotations

from modelyard.cli.audit.commands import app

__all__ = ["app"]
