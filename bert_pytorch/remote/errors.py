"""How a transfer can fail, told apart by what the caller does next; HTTP and S3 raise the same.

All are `InputError`s with a whole message, so that one which nobody handles is told as it is.
"""

from bert_pytorch.errors import InputError


class TransferError(InputError):
    """Bytes that could not be had, for a reason that trying again does not mend."""


class TransferInterrupted(TransferError):  # noqa: N818 what happened, not a defect
    """The connection broke, timed out or the server was busy: try again from where the copy ends."""

    retry_after_seconds: float | None = None
    """When the server asked to come back, where it said so."""


class StartOver(TransferError):  # noqa: N818
    """What was fetched so far cannot be continued (the file changed there): discard it, begin at byte 0."""


class NotThere(TransferError):  # noqa: N818
    """No such file, bucket or repository (404): try a mirror."""


class Refused(TransferError):  # noqa: N818
    """Access denied (401, 403): try a mirror, or give credentials."""
