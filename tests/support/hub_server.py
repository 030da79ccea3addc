"""A server that answers as the Hugging Face hub does, and the other host that it sends readers of large files to.

Shapes as documented at huggingface.co/docs/hub/api and recorded from it: a commit for each branch, lists in pages with
a `Link`, 401 for what one may not know of, redirects for files in large-file storage.
"""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_secretSecretSecret"
PAGE = 3
LARGE = 64
"""Files of more bytes are in large-file storage."""


class Hub:
    """What the server holds, and what it was asked."""

    def __init__(self) -> None:
        self.endpoint = self.other_host = ""
        self.repositories: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        """Host, path and Authorization of each request."""
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        """Instead of the usual ones, by path."""
        self.links_to = "https://huggingface.co"
        """Mirrors pass the hub's own links on."""

    def add(self, kind: str, name: str, branches: dict[str, dict[str, bytes]], **about: Any) -> None:
        """Add a repository with the files of each branch; `about` may hold card, gated and private."""
        commits = {branch: hashlib.sha1(f"{name} {branch}".encode()).hexdigest() for branch in branches}
        self.repositories[f"{kind}/{name}"] = {"branches": branches, "commits": commits, **about}

    def answer(self, path: str, query: dict[str, list[str]], token: str | None) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body."""
        if path in self.answers:
            return self.answers[path]
        parts = path.strip("/").split("/")
        api = parts[0] == "api"
        parts = parts[1:] if api else parts if parts[0] == "datasets" else ["models", *parts]
        name, what, revision = "/".join(parts[1:3]), parts[3], unquote(parts[4])
        found = self.repositories.get(f"{parts[0]}/{name}")
        allowed = token == f"Bearer {TOKEN}"
        if found is None or (found.get("private") and not allowed):
            told = "Repository not found" if allowed else "Invalid username or password."
            return (404 if allowed else 401), {"X-Error-Message": told}, b""
        commit = found["commits"].get(revision, revision)
        branch = next((branch for branch, known in found["commits"].items() if known == commit), None)
        if branch is None:
            return 404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": f"Invalid rev id: {revision}"}, b""
        files = found["branches"][branch]
        if what == "revision":
            about = {"id": name, "sha": commit, "gated": found.get("gated", False), "cardData": found.get("card")}
            return 200, {}, json.dumps(about).encode()
        if what == "tree":
            return self._tree(files, path, query)
        file = unquote("/".join(parts[5:]))
        if len(files[file]) > LARGE:
            return 302, {"Location": f"{self.other_host}/blob/{files[file].hex()}"}, b""
        return 200, {}, files[file]

    def _tree(
        self, files: dict[str, bytes], path: str, query: dict[str, list[str]]
    ) -> tuple[int, dict[str, str], bytes]:
        folders = sorted({"/".join(file.split("/")[:end]) for file in files for end in range(1, file.count("/") + 1)})
        entries: list[dict[str, Any]] = [
            {"type": "directory", "oid": "d" * 40, "size": 0, "path": folder} for folder in folders
        ]
        for file, content in files.items():
            entry = {"type": "file", "oid": "0" * 40, "size": len(content), "path": file}
            if len(content) > LARGE:
                digest = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
            entries.append(entry)
        start = int(query.get("cursor", ["0+/="])[0].removesuffix("+/="))  # as base64 may end
        link = f'<{self.links_to}{path}?limit=1000&cursor={start + PAGE}%2B%2F%3D>; rel="next"'
        page = json.dumps(entries[start : start + PAGE]).encode()
        return 200, ({"Link": link} if start + PAGE < len(entries) else {}), page


@contextlib.contextmanager
def hub_server() -> Iterator[Hub]:
    """Run a hub and its other host."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            token = self.headers.get("Authorization")
            hub.asked.append((f"http://{self.headers['Host']}", parts.path, token))
            if parts.path.startswith("/blob/"):
                status, headers, body = 200, {}, bytes.fromhex(parts.path.removeprefix("/blob/"))
            else:
                status, headers, body = hub.answer(parts.path, parse_qs(parts.query), token)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
    hub.endpoint, hub.other_host = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()
