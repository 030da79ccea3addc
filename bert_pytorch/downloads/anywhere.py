"""Sources that a person points to: any address, an S3 prefix, the Hugging Face hub."""

import posixpath
import re
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from pydantic import Field

from bert_pytorch.downloads.hub import hub_dataset_files, hub_model_files
from bert_pytorch.downloads.s3 import s3_files
from bert_pytorch.downloads.source import Download, DownloadConfig, Source
from bert_pytorch.remote.archives import ARCHIVE_ENDINGS
from bert_pytorch.remote.files import RemoteFile
from bert_pytorch.remote.http import is_http_url
from bert_pytorch.remote.http_errors import show_url
from bert_pytorch.remote.paths import path_problem

_CHECKSUM = r"sha256:[0-9a-fA-F]{64}|sha1:[0-9a-fA-F]{40}|md5:[0-9a-fA-F]{32}"


class UrlConfig(DownloadConfig):
    """Fetch one file from any address, verified where a checksum is given, unpacked where it is an archive."""

    url: tuple[str, ...] = ()
    """Its addresses (https://, http:// or s3://), tried in order; the same file at each."""
    path: str | None = None
    """Its name below the output folder; none: as in the address."""
    checksum: str | None = None
    """sha256:…, sha1:… or md5:… in hexadecimal."""
    size: int | None = Field(None, ge=0)
    """Its bytes."""
    unpack: bool = False
    """Unpack the archive (.zip, .tar, .tar.gz, .tgz, .tar.bz2, .tar.xz) into a folder of its name."""

    def combination_problems(self) -> Iterator[str]:
        """Yield a message for each impossible combination."""
        yield from super().combination_problems()
        if not self.url:
            yield "--url is missing: name an address."
        elif wrong := [url for url in self.url if not url.startswith("s3://") and not is_http_url(url)]:
            yield f"--url: found {show_url(wrong[0])!r}, wanted an address: https://…, http://… or s3://…."
        elif not self.name:
            yield "--path is missing: the address ends with no file name."
        if self.checksum is not None and not re.fullmatch(_CHECKSUM, self.checksum):
            yield f"--checksum: found {self.checksum!r}, wanted sha256:, sha1: or md5: and hexadecimal digits."
        if self.unpack and not self.name.endswith(ARCHIVE_ENDINGS):
            yield f"--unpack: {self.name!r} does not end in {', '.join(ARCHIVE_ENDINGS)}; say its name with --path."
        elif self.unpack and (problem := path_problem(_folder(self.name))):
            yield f"--unpack: the folder {_folder(self.name)!r} of {self.name!r} {problem}; say its name with --path."
        if self.mirror:
            yield "--mirror is not for single addresses: name them all with --url."

    @property
    def name(self) -> str:
        """Path below the output folder."""
        address = self.url[0] if self.url else ""
        try:
            return self.path or posixpath.basename(unquote(urlsplit(address).path))
        except ValueError:
            return ""


def plan_url(config: UrlConfig) -> list[Download]:
    """Return the one file."""
    folder = _folder(config.name) if config.unpack else None
    return [Download(RemoteFile(config.url, config.name, config.size, config.checksum), folder)]


def _folder(archive: str) -> str:
    endings = (ending for ending in ARCHIVE_ENDINGS if archive.endswith(ending))
    return archive.removesuffix(max(endings, key=len))


class S3Config(DownloadConfig):
    """Fetch all objects below a prefix, with the folders below it."""

    url: str | None = None
    """s3://bucket/prefix."""

    def combination_problems(self) -> Iterator[str]:
        """Yield a message for each impossible combination."""
        yield from super().combination_problems()
        if self.url is None:
            yield "--url is missing: name a prefix, s3://bucket/prefix."
        if self.mirror:
            yield "--mirror is not for S3: set AWS_ENDPOINT_URL to another server's address."


def plan_s3(config: S3Config) -> list[Download]:
    """Return the objects."""
    return [Download(file) for file in s3_files(config.url or "")]


class _HubConfig(DownloadConfig):
    """What both kinds of repository take."""

    name: str | None = None
    """owner/name."""
    revision: str | None = None
    """Branch, tag or commit."""

    def combination_problems(self) -> Iterator[str]:
        """Yield a message for each impossible combination."""
        yield from super().combination_problems()
        if self.name is None:
            yield "--name is missing: name a repository of the hub, owner/name."
        if len(self.mirror) > 1:
            yield "--mirror: the hub's files carry the address of the server that listed them; name one."

    @property
    def hub(self) -> str | None:
        """The server to ask instead of $HF_ENDPOINT."""
        return self.mirror[0] if self.mirror else None


class HubDatasetConfig(_HubConfig):
    """Fetch a dataset of the Hugging Face hub: its conversion to Parquet, else its own files."""

    config: str | None = None
    """Which configuration (subset), where it has several."""
    split: str = "train"
    """Which split, or all."""
    files: tuple[str, ...] = ()
    """Globs of its own files, such as en/*.json.gz, instead of the choice by configuration and split."""


def plan_hub_dataset(config: HubDatasetConfig) -> list[Download]:
    """Return the dataset's files."""
    found = hub_dataset_files(config.name or "", config.config, config.split, config.revision, config.files, config.hub)
    return [Download(file) for file in found]


class HubModelConfig(_HubConfig):
    """Fetch a BERT of the Hugging Face hub: configuration, vocabulary and weights."""

    name: str | None = "google-bert/bert-base-uncased"
    """owner/name, such as google-bert/bert-large-cased."""
    weights: bool = True
    """Whether to fetch the weights too, or only configuration and vocabulary."""


def plan_hub_model(config: HubModelConfig) -> list[Download]:
    """Return the model's files."""
    found = hub_model_files(config.name or "", config.revision or "main", config.hub)
    return [Download(file) for file in found if config.weights or not file.path.endswith((".safetensors", ".bin"))]


URL = Source(
    "url",
    "one file from any address",
    "of what is there",
    "any",
    "--url https://host/texts.jsonl.gz",
    UrlConfig,
    plan_url,
)
S3 = Source(
    "s3",
    "everything below an S3 prefix (boto3)",
    "of what is there",
    "any",
    "--url s3://bucket/prefix",
    S3Config,
    plan_s3,
)
HUGGINGFACE = Source(
    "huggingface",
    "any dataset of the Hugging Face hub",
    "of each dataset, see its card",
    "any",
    "--name owner/name --split train",
    HubDatasetConfig,
    plan_hub_dataset,
)
HUGGINGFACE_BERT = Source(
    "huggingface_bert",
    "BERT vocabularies and weights of the Hugging Face hub",
    "Apache 2.0 for google-bert/…, else see its card",
    "0.44 GB (base), 1.3 GB (large)",
    "--name google-bert/bert-base-uncased",
    HubModelConfig,
    plan_hub_model,
)
