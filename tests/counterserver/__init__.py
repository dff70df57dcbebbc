"""Throw-away servers that count limits, which tests may stop, freeze and kill."""
