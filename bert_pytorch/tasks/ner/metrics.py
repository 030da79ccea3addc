"""Precision, recall and F1 of whole entities, as conlleval counts them: right is the same words and the same type."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bert_pytorch.tasks.ner.schemes import Entity


class Counts(NamedTuple):
    """Entities in the file, in the predictions, and in both."""

    wanted: int
    predicted: int
    right: int

    @property
    def precision(self) -> float:
        """Share of the predicted ones that are right; 0 where there are none."""
        return self.right / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """Share of the wanted ones that were found; 0 where there are none."""
        return self.right / self.wanted if self.wanted else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of the two: 2 right / (wanted + predicted)."""
        return 2 * self.right / (self.wanted + self.predicted) if self.right else 0.0


class EntityScores(NamedTuple):
    """How well predictions meet a file."""

    all: Counts
    """Over all types together (seqeval's micro average)."""
    types: Mapping[str, Counts]
    """Of each type that is wanted or predicted, in the order of names."""

    def metrics(self) -> dict[str, float]:
        """Return `precision`, `recall` and `f1` of all, and of each type under `f1_PER`."""
        values = {"precision": self.all.precision, "recall": self.all.recall, "f1": self.all.f1}
        return values | {f"f1_{kind}": counts.f1 for kind, counts in self.types.items()}

    def table(self) -> str:
        """Return a line for each type, and one for all."""
        rows = [*self.types.items(), ("all", self.all)]
        width = max(len(name) for name, _ in rows)
        head = f"{'':<{width}}  precision  recall      f1  wanted  predicted"
        return "\n".join(
            [head]
            + [
                f"{name:<{width}}  {counts.precision:9.2%}  {counts.recall:6.2%}  {counts.f1:6.2%}  "
                f"{counts.wanted:6d}  {counts.predicted:9d}"
                for name, counts in rows
            ]
        )


def score_entities(wanted: Sequence[Sequence[Entity]], predicted: Sequence[Sequence[Entity]]) -> EntityScores:
    """Compare the entities of n sentences with those predicted for them."""
    counters = Counter[str](), Counter[str](), Counter[str]()
    for ours, theirs in zip(wanted, predicted, strict=True):
        for counter, entities in zip(counters, (ours, theirs, set(ours) & set(theirs)), strict=True):
            counter.update(entity.kind for entity in entities)
    types = {kind: Counts(*(counter[kind] for counter in counters)) for kind in sorted(counters[0] | counters[1])}
    return EntityScores(Counts(*(counter.total() for counter in counters)), types)
