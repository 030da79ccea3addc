"""A real S3 server on this machine, and a wire to it that breaks."""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "secret-of-tester", "AWS_REGION": "us-east-1"}


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """Run moto's S3 server in this process; yield its address."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def use_s3(patch: pytest.MonkeyPatch, endpoint: str, credentials: bool = True) -> None:
    """Let this process and its children see `endpoint` and nothing of the machine's own AWS settings."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        patch.delenv(name)
    quiet = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    settings = {"AWS_ENDPOINT_URL": endpoint, "AWS_EC2_METADATA_DISABLED": "true", **quiet}
    for name, value in {**settings, **(CREDENTIALS if credentials else {})}.items():
        patch.setenv(name, value)


@contextlib.contextmanager
def cutting_proxy(upstream: str, bytes_each: list[int], spoil: tuple[bytes, bytes] = (b"", b"")) -> Iterator[str]:
    """Pass connections on to `upstream`, cutting the k-th after `bytes_each[k]` bytes of its answers.

    Connections beyond the list are not cut.  The second of `spoil` replaces the first
    in answers.  Each connection serves one request, so the list counts requests.
    """
    host, _, port = upstream.removeprefix("http://").partition(":")
    listener = socket.create_server(("127.0.0.1", 0))
    limits = iter(bytes_each)

    def serve(client: socket.socket) -> None:
        allowed = next(limits, None)
        with client, socket.create_connection((host, int(port))) as server, contextlib.suppress(OSError):
            threading.Thread(target=_copy_request, args=(client, server), daemon=True).start()
            while piece := server.recv(1 << 16):
                piece = piece.replace(*spoil) if spoil[0] else piece
                client.sendall(piece if allowed is None else piece[:allowed])
                if allowed is not None and (allowed := allowed - len(piece)) <= 0:
                    break
            for end in (client, server):
                end.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _copy_request(client: socket.socket, server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := client.recv(1 << 16):
            server.sendall(piece.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))


@contextlib.contextmanager
def recording_proxy(
    upstream: str,
    on_connection: Callable[[], None] = lambda: None,
    *,
    pause: float = 0.0,
    bytes_before_stall: int | None = None,
) -> Iterator[tuple[str, list[str]]]:
    """Pass connections on to `upstream`; yield the address and the lines of all requests' heads so far.

    Args:
        upstream: address of the server; where nothing listens, connections are closed at once.
        on_connection: called with each.
        pause: seconds before an answer is passed on.
        bytes_before_stall: of each answer, after which nothing more comes, nor does the connection end.
    """
    host, _, port = upstream.removeprefix("http://").partition(":")
    listener = socket.create_server(("127.0.0.1", 0))
    lines: list[str] = []
    ended = threading.Event()

    def answer(client: socket.socket, server: socket.socket) -> None:
        allowed = bytes_before_stall
        with client, server, contextlib.suppress(OSError):
            while piece := server.recv(1 << 16):
                ended.wait(pause)
                client.sendall(piece if allowed is None else piece[:allowed])
                if allowed is not None and (allowed := allowed - len(piece)) <= 0:
                    ended.wait(60)
                    break
            client.shutdown(socket.SHUT_RDWR)

    def serve(client: socket.socket) -> None:
        on_connection()
        try:
            server = socket.create_connection((host, int(port)))
        except OSError:
            client.close()
            return
        threading.Thread(target=answer, args=(client, server), daemon=True).start()
        with contextlib.suppress(OSError):
            while piece := client.recv(1 << 16):
                lines.extend(piece.decode("latin-1").split("\r\n"))
                server.sendall(piece.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", lines
    finally:
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
