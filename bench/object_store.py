"""A server that knows as much of S3 as an artifact store asks for, and keeps what it is given in files: quick enough
that the client is measured, and an artifact of gigabytes is not held in memory (moto does that).

`python bench/object_store.py FOLDER PART_BYTES PORT`. Parts are of PART_BYTES, but for the last.
"""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BLOCK_BYTES = 1024 * 1024
_LIST = (
    '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    "<Name>{bucket}</Name><KeyCount>{count}</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>"
    "{contents}</ListBucketResult>"
)
_BEGUN = "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
_DONE = '<CompleteMultipartUploadResult><ETag>"1"</ETag></CompleteMultipartUploadResult>'
_ABSENT = "<Error><Code>NoSuchKey</Code></Error>"


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    folder = Path()
    part_bytes = 0

    def do_PUT(self) -> None:
        """An object, or a part of one in its place."""
        asked = parse_qs(urlsplit(self.path).query)
        place = self._place()
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
        with place.open("r+b") as file:
            file.seek((int(asked["partNumber"][0]) - 1) * self.part_bytes if "partNumber" in asked else 0)
            left = int(self.headers["content-length"])
            while left:
                block = self.rfile.read(min(BLOCK_BYTES, left))
                file.write(block)
                left -= len(block)
        self._answer(200, "")

    def do_POST(self) -> None:
        """An upload begins or ends."""
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self._answer(200, _BEGUN if "uploads" in urlsplit(self.path).query else _DONE)

    def do_HEAD(self) -> None:
        """How large an object is."""
        self._head(200, self._place().stat().st_size)

    def do_GET(self) -> None:
        """The list of a bucket, an object, or a range of one."""
        place = self._place()
        if "list-type" in self.path:
            self._list(place)
            return
        if not place.is_file():
            self._answer(404, _ABSENT)
            return
        size = place.stat().st_size
        start, end = 0, size - 1
        if named := self.headers.get("range"):
            start, end = (int(at) if at else size - 1 for at in named.removeprefix("bytes=").split("-"))
        self._head(206 if named else 200, end + 1 - start, f"bytes {start}-{end}/{size}" if named else "")
        with place.open("rb") as file:
            self.connection.sendfile(file, start, end + 1 - start)

    def _list(self, bucket: Path) -> None:
        prefix = parse_qs(urlsplit(self.path).query).get("prefix", [""])[0]
        files = {str(path.relative_to(bucket)): path.stat().st_size for path in bucket.rglob("*") if path.is_file()}
        found = {key: size for key, size in files.items() if key.startswith(prefix)}
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{size}</Size></Contents>" for key, size in found.items()
        )
        self._answer(200, _LIST.format(bucket=bucket.name, count=len(found), contents=contents))

    def _place(self) -> Path:
        return self.folder / unquote(urlsplit(self.path).path).strip("/")

    def _answer(self, status: int, text: str) -> None:
        self._head(status, len(text))
        self.wfile.write(text.encode())

    def _head(self, status: int, length: int, content_range: str = "") -> None:
        self.send_response(status)
        self.send_header("etag", '"1"')
        self.send_header("last-modified", "Wed, 01 Jan 2025 00:00:00 GMT")
        self.send_header("accept-ranges", "bytes")
        self.send_header("content-length", str(length))
        if content_range:
            self.send_header("content-range", content_range)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


def main(folder: str, part_bytes: str, port: str) -> None:
    """Serves until it is killed."""
    Handler.folder, Handler.part_bytes = Path(folder), int(part_bytes)
    ThreadingHTTPServer.daemon_threads = True
    ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
