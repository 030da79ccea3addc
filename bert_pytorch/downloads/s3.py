"""What lies below an `s3://` prefix, as files to download."""

from bert_pytorch.remote.errors import NotThere, TransferError
from bert_pytorch.remote.files import RemoteFile
from bert_pytorch.remote.s3 import list_s3


def s3_files(url: str) -> list[RemoteFile]:
    """Return the objects below `s3://bucket/prefix`, with the folders below the prefix kept; errors as `list_s3`'s."""
    try:
        return list_s3(url)
    except NotThere:
        raise
    except TransferError as error:
        raise type(error)(
            f"{error} By hand: on a machine with access, `aws s3 sync {url} DIR`; copy the folder here and give it to "
            "`python -m bert_pytorch.corpus format --input DIR`."
        ) from error
