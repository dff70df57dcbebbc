"""A throw-away nginx before a server, as operators put one there."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

from server import until

CONFIGURATION = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream modelyard {{ server 127.0.0.1:{upstream}; keepalive 4; }}
  server {{
    listen 127.0.0.1:{port};
    client_max_body_size 64m;
    location / {{
      proxy_pass http://modelyard;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $remote_addr;
    }}
  }}
}}
"""


class Nginx:
    """Listens on a free port and passes everything on to `upstream`, over connections that it keeps."""

    def __init__(self, folder: Path, upstream: int) -> None:
        folder.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._file = folder / "nginx.conf"
        self._file.write_text(CONFIGURATION.format(folder=folder, port=self.port, upstream=upstream))
        found = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/opt/homebrew/bin")
        assert found is not None
        self._command = [found, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(self._file)]

    def start(self) -> Nginx:
        """Starts it and waits until it accepts."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self._accepts, 10, "nginx")
        return self

    def _accepts(self) -> bool:
        assert self._process.poll() is None, "nginx ended"
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except ConnectionRefusedError:
            return False
        return True

    def stop(self) -> None:
        """Ends it, with its worker."""
        self._process.terminate()
        self._process.wait(10)


def nginx_is_here() -> bool:
    """Whether this machine has nginx."""
    return shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/opt/homebrew/bin") is not None
