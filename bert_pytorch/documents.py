"""How large a document may be, whatever file it stands in."""

from bert_pytorch.errors import InputError

LARGEST_DOCUMENT = 128 << 20
"""Characters of the largest document, or line, that is read: what bounds memory, with 1 to 4 bytes a character."""


def too_large(where: str) -> InputError:
    """Return the error for a document or a line that is too large."""
    return InputError(
        f"{where}: more than {LARGEST_DOCUMENT >> 20} Mi characters, the most that one document may have. "
        "Divide it, or remove it from the input."
    )
