"""What lies below an `s3://` prefix, as files to download."""

from bert_pytorch.remote.files import RemoteFile
from bert_pytorch.remote.s3 import list_s3


def s3_files(url: str) -> list[RemoteFile]:
    """Return the objects below `s3://bucket/prefix`, with the folders below the prefix kept; errors as `list_s3`'s."""
    return list_s3(url)
