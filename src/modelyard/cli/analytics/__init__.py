"""`modelyard analytics`: figures of the prediction log."""

from modelyard.cli.analytics.commands import app

__all__ = ["app"]
