"""A wire to a server: one that is slow, stalls, breaks, spoils what passes, and keeps what was asked."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple


class Break(NamedTuple):
    """Where an answer ends early."""

    after: int
    """Bytes of the answer, its head included."""
    stalls: bool = False
    """Nothing more comes, nor does the connection end; otherwise it is cut."""


class Wire(NamedTuple):
    """What a test sees of it."""

    url: str
    """Take this for the server's address."""
    heads: list[str]
    """Lines of the heads of all requests so far."""

    def asked(self, name: str) -> list[str]:
        """Return the request lines that end in a path's name."""
        return [line for line in self.heads if line.endswith(f"/{name} HTTP/1.1")]


@contextlib.contextmanager
def wire(
    upstream: str,
    breaks: Iterable[Break | None] = (),
    *,
    of: str = "",
    bytes_per_second: float | None = None,
    pause: float = 0.0,
    spoil: tuple[bytes, bytes] = (b"", b""),
    on_request: Callable[[], None] = lambda: None,
) -> Iterator[Wire]:
    """Pass requests on to `upstream`, one a connection.

    Args:
        upstream: `http://host:port`; where nothing listens, connections are closed at once.
        breaks: of the answers in order; those beyond are whole.
        of: breaks and speed are of requests whose first line holds this.
        bytes_per_second: of each answer.
        pause: seconds before each answer.
        spoil: the second replaces the first in answers.
        on_request: called with each.
    """
    host, _, port = upstream.removeprefix("http://").partition(":")
    listener = socket.create_server(("127.0.0.1", 0))
    made = Wire(f"http://127.0.0.1:{listener.getsockname()[1]}", [])
    ended, coming, taking = threading.Event(), iter(breaks), threading.Lock()

    def serve(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = _head(client)
            made.heads.extend(head.decode("latin-1").split("\r\n"))
            on_request()
            faulty = of in head.decode("latin-1").partition("\r\n")[0]
            with taking:
                end = next(coming, None) if faulty else None
            with socket.create_connection((host, int(port))) as server:
                server.sendall(head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
                ended.wait(pause)
                answer(server, client, end, bytes_per_second if faulty else None)
            client.shutdown(socket.SHUT_RDWR)

    def answer(server: socket.socket, client: socket.socket, end: Break | None, speed: float | None) -> None:
        left = None if end is None else end.after
        while piece := server.recv(1 << 16 if speed is None else max(1, int(speed / 20))):
            piece = piece.replace(*spoil) if spoil[0] else piece
            client.sendall(piece if left is None else piece[:left])
            if speed is not None:
                ended.wait(len(piece) / speed)
            if left is not None and end is not None and (left := left - len(piece)) <= 0:
                if end.stalls:
                    ended.wait(60)
                return

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield made
    finally:
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _head(client: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head and (piece := client.recv(1 << 16)):
        head += piece
    return head
