"""An object store that answers what it was told to."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRETS = ("123456789012", "AKIAIOSFODNN7EXAMPLE", "arn:aws:iam", "hunter2", "10.1.2.3")
"""What a store's own text may hold."""


def refusal(code: str) -> bytes:
    """A refusal as the service words it, with everything in it that is nobody else's business."""
    told = " ".join(SECRETS)
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{told}</Message>'
        f"<AWSAccessKeyId>{SECRETS[1]}</AWSAccessKeyId><RequestId>1</RequestId></Error>"
    ).encode()


LISTED = (
    b'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    b"<Name>b</Name><KeyCount>0</KeyCount><MaxKeys>1</MaxKeys><IsTruncated>false</IsTruncated></ListBucketResult>"
)
"""A bucket without the object that was asked for."""


class AnswersWhatItIsTold(BaseHTTPRequestHandler):
    """The next answer of the server's list; the last one again and again."""

    def _answer(self) -> None:
        server: Any = self.server
        server.asked += 1
        status, body = server.told[min(server.asked, len(server.told)) - 1]
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(status)
        self.send_header("content-type", "application/xml")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _answer

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@contextmanager
def answering(told: Sequence[tuple[int, bytes]]) -> Iterator[Any]:
    """A server with `url`, and `asked`, the number of requests so far."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), AnswersWhatItIsTold)
    server.told, server.asked = list(told), 0
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
