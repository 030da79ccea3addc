"""Files and labels of entity tagging."""

from pathlib import Path

from bert_pytorch.config.settings import Settings


class NerConfig(Settings):
    """CoNLL files: a word a line, its tag in the last column, sentences apart by blank lines; IOB1, IOB2 or BIOES."""

    train_file: Path | None = None
    """Sentences to learn from."""
    val_file: Path | None = None
    """Sentences that --do_eval scores, while training and at the end."""
    test_file: Path | None = None
    """Sentences that --do_predict tags and scores; test_predictions.conll has them with a column more."""
    labels: tuple[str, ...] = ()
    """Types of entities, such as PER LOC, or their tags (O B-PER I-PER …); by default those in --train_file, or of the
    model where nothing is trained."""
