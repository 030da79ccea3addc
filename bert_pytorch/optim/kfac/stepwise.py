"""Values that change at given updates, as people write them: `10`, or `10,1000:100` for 100 from update 1,000 on."""

from typing import NamedTuple


class Piece(NamedTuple):
    """A value and the update from which it holds."""

    first: int
    value: float


class Stepwise(NamedTuple):
    """A value by number of update (1-based, phases added up), constant between the updates at which it changes."""

    pieces: tuple[Piece, ...]

    def piece(self, step: int) -> Piece:
        """Return what holds in update `step`."""
        return next(piece for piece in reversed(self.pieces) if piece.first <= step)

    def at(self, step: int) -> float:
        """Return the value in update `step`."""
        return self.piece(step).value

    def is_due(self, step: int) -> bool:
        """Read the values as intervals: whether one ends with update `step`; the first ends at once."""
        first, interval = self.piece(step)
        return (step - first) % int(interval) == 0


def parse_stepwise(text: float | str) -> Stepwise:
    """Read a number, or `V,STEP:V,STEP:V` with rising steps.

    Raises:
        ValueError: if the text has another form.
    """
    begin, *changes = str(text).split(",")
    pieces = [Piece(1, float(begin))]
    for change in changes:
        step, colon, value = change.partition(":")
        if not colon or int(step) <= pieces[-1].first:
            raise ValueError(f"{change!r} is not STEP:VALUE with a step above {pieces[-1].first}")
        pieces.append(Piece(int(step), float(value)))
    return Stepwise(tuple(pieces))
