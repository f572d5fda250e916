"""A server on this machine that has files, and breaks off, lies or refuses as the path says."""

import re
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Serves the server's content, or its file of the name asked for, with ranges.

    /broken stops midway on the first request and /slow until the server is told to go on; /plain ignores ranges,
    /shifted answers with other bytes than it was asked for, /silent does not say how long the file is.
    """

    def do_HEAD(self):
        status = 200 if self.path.split("?")[0] not in ("/absent", "/silent") else 404
        self.send_response(status)
        self.send_header("Content-Length", str(len(self.content())))
        self.end_headers()

    def content(self):
        return self.server.files.get(self.path.split("?")[0], self.server.content)

    def do_GET(self):
        content, ranges = self.content(), self.server.ranges
        half = self.path in ("/broken", "/slow") and not ranges
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and self.path != "/plain" else 0
        ranges.append(self.headers.get("Range"))
        status = {"/absent": 404, "/busy": 503}.get(self.path, 416 if start >= len(content) else 206 if start else 200)
        body = content[start:] if status < 300 else b""
        self.send_response(status)
        if self.path != "/silent":
            self.send_header("Content-Length", str(len(body)))
        if status == 206:
            first = start + (self.path == "/shifted")
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        with suppress(ConnectionError):  # a client that has seen enough, or was killed
            self.wfile.write(body[: len(body) // 2] if half else body)
        if half and self.path == "/slow":
            self.wfile.flush()
            self.server.go_on.wait(30)

    def log_message(self, *_):
        """Keep the test output quiet."""


@contextmanager
def serving(monkeypatch, content=b""):
    """The server while it runs: its `url`, `content`, `files` by path, and the `ranges` that it was asked for."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.files, server.ranges, server.go_on = content, {}, [], threading.Event()
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.go_on.set()
    server.shutdown()
    thread.join()
    server.server_close()
