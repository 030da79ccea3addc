"""The Hugging Face hub's HTTP API: what a repository holds, without running its code or needing its libraries.

Answers as documented at huggingface.co/docs/hub/api and as `huggingface_hub` 2.4.0 reads them.
"""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qs, quote, urlsplit

from bert_pytorch.errors import ConfigError, InputError
from bert_pytorch.remote.errors import NotThere, Refused, TransferError
from bert_pytorch.remote.files import RemoteFile, SecretHeader
from bert_pytorch.remote.json_api import get_json

_HUB = "https://huggingface.co"
_MOST_PAGES = 2000
"""Of a thousand files each."""

_log = logging.getLogger(__name__)


class HubRepository(NamedTuple):
    """A repository and how it is reached."""

    kind: Literal["datasets", "models"]
    name: str
    """`owner/name`, or `name` for a few old ones."""
    endpoint: str
    token: SecretHeader | None

    @property
    def api(self) -> str:
        """Where it is described."""
        return f"{self.endpoint}/api/{self.kind}/{self.name}"

    @property
    def page(self) -> str:
        """Where people look at it; its files lie below."""
        return f"{self.endpoint}/{self.name}" if self.kind == "models" else f"{self.endpoint}/datasets/{self.name}"


class HubRevision(NamedTuple):
    """One state of a repository, for good."""

    repository: HubRepository
    commit: str
    """Files are named by it, so that a download resumed tomorrow is of the same bytes."""
    card: dict[str, Any]
    """What the head of its README says; written by its owner, so nothing in it is sure."""


def hub_repository(kind: Literal["datasets", "models"], name: str, mirror: str | None = None) -> HubRepository:
    """Return the repository `name` at `mirror`, else $HF_ENDPOINT, else huggingface.co.

    It is asked with $HF_TOKEN where the person chose that server for the token: huggingface.co or $HF_ENDPOINT, never
    because it is named as a mirror, and over http on this machine only.

    Raises:
        InputError: if `name` is none, or $HF_HUB_OFFLINE forbids asking.
        ConfigError: for an endpoint or token that cannot be one; the token is not shown.
    """
    if not re.fullmatch(r"(?!.*\.\.)[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", name, re.ASCII) or len(name) > 200:
        raise InputError(
            f"{name!r}: no name of a Hugging Face repository; wanted owner/name, as in wikimedia/wikipedia."
        )
    own = os.environ.get("HF_ENDPOINT", "").rstrip("/") or _HUB
    endpoint = own if mirror is None else mirror.rstrip("/")
    if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", endpoint) or not _has_host(endpoint):
        place = "HF_ENDPOINT" if mirror is None else "--mirror"
        raise ConfigError(place, [f"{endpoint!r} is no web address; wanted one like {_HUB}."])
    token = os.environ.get("HF_TOKEN", "").strip()
    if not re.fullmatch(r"[!-~]*", token):
        raise ConfigError(
            "HF_TOKEN", ["holds characters that no token has. Copy it again from the hub's settings page."]
        )
    secret = SecretHeader(endpoint, "Authorization", f"Bearer {token}") if token else None
    if secret is not None and not (endpoint in (_HUB, own) and _is_private(endpoint)):
        _log.warning("%s: HF_TOKEN is not sent there; it goes to %s and to an https HF_ENDPOINT", endpoint, _HUB)
        secret = None
    repository = HubRepository(kind, name, endpoint, secret)
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise InputError(f"{name}: HF_HUB_OFFLINE is set, so the hub is not asked. {_by_hand(repository)}")
    return repository


def _has_host(endpoint: str) -> bool:
    try:
        return bool(urlsplit(endpoint).hostname)
    except ValueError:
        return False


def _is_private(endpoint: str) -> bool:
    """Whether nobody on the way can read what is sent."""
    parts = urlsplit(endpoint)
    return parts.scheme == "https" or parts.hostname in ("localhost", "127.0.0.1", "::1")


def hub_revision(repository: HubRepository, revision: str) -> HubRevision:
    """Return what a branch, tag or commit is now.

    Raises:
        NotThere: no such repository or revision.
        Refused: it is private, or gated and $HF_TOKEN does not open it.
    """
    with _explained(repository):
        answer = get_json(f"{repository.api}/revision/{quote(revision, safe='')}", repository.token).value
    commit = answer.get("sha") if isinstance(answer, dict) else None
    if not isinstance(commit, str) or not re.fullmatch(r"[0-9a-f]{40,64}", commit):
        raise _unexpected(repository)
    if answer.get("gated") and repository.token is None:
        raise Refused(f"{repository.name}: is open only to those who accepted its terms. {_access_advice(repository)}")
    card = answer.get("cardData")
    return HubRevision(repository, commit, card if isinstance(card, dict) else {})


def hub_tree(revision: HubRevision) -> dict[str, RemoteFile]:
    """Return all files of a revision by path, with sizes, and SHA-256 of those in large-file storage."""
    repository, files = revision.repository, {}
    for entry in _tree_entries(revision):
        if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
            raise _unexpected(repository)
        if entry.get("type") == "file":
            path, size, stored = entry["path"], entry.get("size"), entry.get("lfs")
            digest = str(stored.get("oid")) if isinstance(stored, dict) else ""  # the entry's own oid is git's
            files[path] = RemoteFile(
                (f"{repository.page}/resolve/{revision.commit}/{quote(path)}",),
                path,
                size if isinstance(size, int) and size >= 0 else None,
                f"sha256:{digest.lower()}" if re.fullmatch(r"[0-9a-fA-F]{64}", digest) else None,
                repository.token,
            )
    return files


def _tree_entries(revision: HubRevision) -> Iterator[Any]:
    first = f"{revision.repository.api}/tree/{revision.commit}?recursive=true&expand=false"
    url = first
    for _ in range(_MOST_PAGES):
        with _explained(revision.repository):
            page = get_json(url, revision.repository.token)
        if not isinstance(page.value, list):
            raise _unexpected(revision.repository)
        yield from page.value
        if page.next_url is None:
            return
        # Mirrors pass on links to huggingface.co itself: only the place in the list is taken from them.
        cursor = parse_qs(urlsplit(page.next_url).query).get("cursor", [""])[0]
        following = f"{first}&limit=1000&cursor={quote(cursor, safe='')}"
        if not cursor or following == url:
            raise _unexpected(revision.repository)
        url = following
    raise InputError(
        f"{revision.repository.name}: lists more than {_MOST_PAGES} pages of files. {_by_hand(revision.repository)}"
    )


@contextmanager
def _explained(repository: HubRepository) -> Iterator[None]:
    """Add to what the server says what a person can do."""
    try:
        yield
    except Refused as error:
        missing = (
            "there is no such repository, or it is private or gated" if repository.token is None else "access denied"
        )
        raise Refused(f"{repository.name}: {missing}. {error} {_access_advice(repository)}") from error
    except NotThere as error:
        raise NotThere(
            f"{repository.name}: not on the hub. {error} Check name and revision at {repository.page}."
        ) from error
    except TransferError as error:
        raise type(error)(f"{repository.name}: {error} {_by_hand(repository)}") from error


def _access_advice(repository: HubRepository) -> str:
    return (
        f"Check the name, accept the terms at {repository.page}, and set HF_TOKEN to a token that may read it "
        f"({repository.endpoint}/settings/tokens). {_by_hand(repository)}"
    )


def _by_hand(repository: HubRepository) -> str:
    kind, use = (
        ("dataset", "give it to `python -m bert_pytorch.corpus format --input DIR`")
        if repository.kind == "datasets"
        else ("model", "name it, as in `--init_checkpoint DIR`")
    )
    return (
        f"By hand: on a machine with access, `hf download {repository.name} --repo-type {kind} --local-dir DIR`; "
        f"copy the folder here and {use}."
    )


def _unexpected(repository: HubRepository) -> TransferError:
    return TransferError(
        f"{repository.name}: {repository.endpoint} does not answer as a Hugging Face hub does. Check HF_ENDPOINT. "
        f"{_by_hand(repository)}"
    )
