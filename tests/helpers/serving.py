"""A web server on this machine that misbehaves on demand."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@dataclass
class Server:
    """files by path · cuts: bytes after which the next replies' connections break (None = not) · states: the next
    replies' HTTP states, before any file is served · ranges: whether parts can be asked for · if_range: whether parts
    of a file that changed are refused · shift: bytes that parts begin too late · piece: bytes that a part has at most ·
    etag, modified: of all files, empty = not told · requests: (path, Range header) of everything asked so far ·
    headers: more of them by path · refusals: HTTP state and X-Error-Code by path, for who does not bear `token` ·
    methods: of everything asked so far, (method, path)"""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int | None] = field(default_factory=list)
    states: list[int] = field(default_factory=list)
    ranges: bool = True
    if_range: bool = True
    shift: int = 0
    piece: int | None = None
    etag: str = '"1"'
    modified: str = ""
    content_type: str = "application/octet-stream"
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)
    token: str = ""
    methods: list[tuple[str, str]] = field(default_factory=list)


def handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def refused(self) -> bool:
            """Whether an answer was given already: a hub's for what may not be read, or is not there."""
            server.methods.append((self.command, self.path))
            bearer = server.token and self.headers.get("Authorization") == f"Bearer {server.token}"
            if self.path not in server.refusals or bearer:
                return False
            state, code = server.refusals[self.path]
            self.send_response(state)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return True

        def tell(self) -> None:
            for name, value in server.headers.get(self.path, {}).items():
                self.send_header(name, value)
            self.end_headers()

        def do_GET(self) -> None:
            if self.refused():
                return
            asked = self.headers.get("Range")
            server.requests.append((self.path, asked))
            if server.states:
                return self.send_error(server.states.pop(0))
            if self.path not in server.files:
                return self.send_error(404)
            data, start = server.files[self.path], 0
            version = server.etag or server.modified
            same = not server.if_range or self.headers.get("If-Range", version) == version
            if asked and server.ranges and same:
                start = int(asked.removeprefix("bytes=").removesuffix("-")) + server.shift
                if start >= len(data):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(data)}")
                    self.send_header("Content-Length", "0")
                    return self.end_headers()
            self.send_response(206 if start else 200)
            end = len(data)
            if start:
                end = min(end, start + (server.piece or end))
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
            self.send_header("Content-Length", str(end - start))
            self.send_header("Content-Type", server.content_type)
            for name, value in (("ETag", server.etag), ("Last-Modified", server.modified)):
                if value:
                    self.send_header(name, value)
            self.tell()
            cut = server.cuts.pop(0) if server.cuts else None
            with suppress(ConnectionError):  # of a client that has seen enough
                self.wfile.write(data[start:end] if cut is None else data[start : start + cut])

        def do_HEAD(self) -> None:
            if self.refused():
                return
            known = self.path in server.files
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", str(len(server.files[self.path]) if known else 0))
            self.tell()

        def log_message(self, *words) -> None:
            pass

    return Handler


@contextmanager
def serving(**files: bytes) -> Iterator[Server]:
    """A running server; files by name."""
    server = Server(files={f"/{name}": data for name, data in files.items()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(server)) as http:
        server.url = f"http://127.0.0.1:{http.server_port}"
        thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        http.shutdown()
        thread.join()
