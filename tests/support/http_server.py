"""A real HTTP server on this machine that can do what servers do wrong."""

import contextlib
import http.server
import re
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import NamedTuple

PIECE = 1 << 16


class Fault(NamedTuple):
    """What goes wrong with one request."""

    status: int | None = None
    """Answer with this status and no file."""
    headers: Mapping[str, str] = {}
    """Sent with that answer."""
    drop_after: int | None = None
    """Close the connection after so many bytes of the body."""


@dataclass
class Served:
    """One file of the server."""

    content: bytes
    etag: str | None = '"first"'
    ranges: bool = True
    """Whether parts are sent; otherwise always the whole."""
    heeds_if_range: bool = True
    length: bool = True
    """Whether the answer has a Content-Length."""
    pause: float = 0.0
    """Seconds before each 64 KiB."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent besides."""
    faults: list[Fault] = field(default_factory=list)
    """Of the next requests, the first one first."""


class Request(NamedTuple):
    """What the server was asked."""

    path: str
    headers: Message
    status: int


class FileServer:
    """Serves `files` by path (`/name`); keeps `requests` and counts `bytes_sent` of bodies."""

    def __init__(self, certificate: Path | None = None) -> None:
        self.files: dict[str, Served] = {}
        self.requests: list[Request] = []
        self.bytes_sent = 0
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server._answer(self)

            def log_message(self, *words: object) -> None:  # type: ignore[override]
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self._server.handle_error = lambda request, address: None  # type: ignore[method-assign]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self._server.server_address[1]}"

    def add(self, path: str, content: bytes, **how: object) -> str:
        """Serve `content` at `path` and return its URL."""
        self.files[f"/{path}"] = Served(content, **how)  # type: ignore[arg-type]
        return f"{self.url}/{path}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        served = self.files.get(path)
        fault = served.faults.pop(0) if served is not None and served.faults else Fault()
        if served is None or fault.status is not None:
            status = fault.status or 404
            self.requests.append(Request(request.path, request.headers, status))
            request.send_response(status)
            for name, value in fault.headers.items():
                request.send_header(name, value)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        start, status = self._start(request, served)
        self.requests.append(Request(request.path, request.headers, status))
        request.send_response(status)
        if served.etag is not None:
            request.send_header("ETag", served.etag)
        for name, value in served.headers.items():
            request.send_header(name, value)
        size = len(served.content)
        if status == 416:
            request.send_header("Content-Range", f"bytes */{size}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        if status == 206:
            request.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        if served.length:
            request.send_header("Content-Length", str(size - start))
        request.end_headers()
        end = size if fault.drop_after is None else min(start + fault.drop_after, size)
        with contextlib.suppress(ConnectionError):
            for position in range(start, end, PIECE):
                time.sleep(served.pause)
                piece = served.content[position : min(position + PIECE, end)]
                request.wfile.write(piece)
                self.bytes_sent += len(piece)

    @staticmethod
    def _start(request: http.server.BaseHTTPRequestHandler, served: Served) -> tuple[int, int]:
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        condition = request.headers.get("If-Range")
        if not asked or not served.ranges:
            return 0, 200
        if condition is not None and condition != served.etag and served.heeds_if_range:
            return 0, 200
        start = int(asked.group(1))
        return (start, 206) if start < len(served.content) else (start, 416)


@contextlib.contextmanager
def file_server(certificate: Path | None = None) -> Iterator[FileServer]:
    """Run a server for the block; https with a certificate (a PEM file that holds its key too)."""
    server = FileServer(certificate)
    try:
        yield server
    finally:
        server.close()
