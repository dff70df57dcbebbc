"""The management application over the public fakes, as the tests of the routes have it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "http_routes"))

from yard_support import yard

__all__ = ["yard"]
