"""granian's floor: the body is read, two bytes are answered (RSGI)."""

import sys
from typing import Any

from granian import Granian
from granian.constants import Interfaces


async def app(scope: Any, protocol: Any) -> None:
    await protocol()
    protocol.response_str(200, [("content-type", "text/plain")], "ok")


if __name__ == "__main__":
    Granian("granian_hello:app", port=int(sys.argv[1]), interface=Interfaces.RSGI, log_enabled=False).serve()
