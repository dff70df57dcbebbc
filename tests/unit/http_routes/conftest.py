"""The management application over the public fakes, as the fixture `yard`."""

from yard_support import yard

__all__ = ["yard"]
