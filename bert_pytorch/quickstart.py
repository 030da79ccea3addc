"""The main job on text that every Python carries: `python -m bert_pytorch.quickstart`, called by scripts/quickstart.sh.

Writes CPython's own documentation and the standard library's docstrings as text, then runs the very commands that a
user would type, showing each: corpus, two phases of pretraining, filling masks.
"""

import ast
import json
import os
import shlex
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bert_pytorch.config.command_line import parse_settings
from bert_pytorch.config.settings import Settings
from bert_pytorch.data.statistics import unigram_entropy
from bert_pytorch.errors import BertPytorchError, front_door
from bert_pytorch.files import atomic_write_text
from bert_pytorch.shards.opening import open_shards

REPOSITORY = Path(__file__).resolve().parents[1]
VOCAB_SIZE = 4096
LENGTHS = (64, 128)
EXAMPLES = (
    "Return the number of [MASK] in the list.",
    "If the file does not exist, an [MASK] is raised.",
    "The default value of this argument is [MASK].",
    "A class [MASK] may call the method of its base class.",
    "Return a string [MASK] the name of the module.",
)
NOT_DOCUMENTATION = {"site-packages", "test", "tests", "idlelib", "turtledemo", "lib2to3", "pydoc_data"}


class QuickstartConfig(Settings):
    """Options of the quickstart."""

    output_dir: Path = Path("runs/quickstart")
    """Folder for text, corpus, checkpoints and model; a second start continues what is there."""


def main() -> None:
    """Run the quickstart."""
    settings = parse_settings(
        QuickstartConfig, sys.argv[1:], program="quickstart", description="From raw text to a BERT that fills masks."
    ).settings
    started, folder = time.monotonic(), _short(settings.output_dir)
    text, corpus, run = folder / "python_documentation.jsonl", folder / "corpus", folder / "run"
    _say("1. Text: CPython's documentation and the standard library's docstrings")
    documents = dict(standard_library_text())
    atomic_write_text(
        REPOSITORY / text, "".join(json.dumps({"title": k, "text": v}) + "\n" for k, v in documents.items())
    )
    _say(f"   {text}: {len(documents)} documents, {sum(map(len, documents.values())) / 1e6:.1f} million characters")
    _say("2. Corpus: sentences, an uncased WordPiece vocabulary, shards of two lengths with a held-out part")
    _run(
        [
            "./scripts/create_datasets.sh", "--format", "--encode", "--encode-type", "bert", "--input", text,
            "--output", corpus, "--nproc", str(os.cpu_count() or 1), "--vocab_size", str(VOCAB_SIZE),
            "--max_seq_len", *map(str, LENGTHS), "--eval_fraction", "0.05",
        ]
    )  # fmt: skip
    sets = [_encoded_set(corpus, length) for length in LENGTHS]
    for phase, encoded in enumerate(sets, start=1):
        _say(f"{phase + 2}. Pretraining, phase {phase}: sequences of {LENGTHS[phase - 1]} tokens")
        config = f"config/pretraining/quickstart_phase{phase}.json"
        files: list[str | Path] = ["--config_file", config, "--input_dir", encoded, "--output_dir", run]
        _run([sys.executable, "run_pretraining.py", *files])
    _say("5. Filling masks with the result")
    _run([sys.executable, "-m", "bert_pytorch.predict", "fill-mask", "--checkpoint", run, *EXAMPLES])
    _say("Result")
    sys.stdout.write(summary(REPOSITORY / run, [REPOSITORY / path for path in sets], time.monotonic() - started))


def standard_library_text() -> Iterator[tuple[str, str]]:
    """Yield titles and texts: each help topic, and the docstrings of each module, which is parsed, never imported."""
    from pydoc_data.topics import topics

    for name, text in sorted(topics.items()):
        yield f"topic {name}", text
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        module = path.relative_to(root)
        if NOT_DOCUMENTATION.isdisjoint(module.parts) and (text := _docstrings(path)):
            yield f"module {'.'.join(module.with_suffix('').parts)}", text


def summary(run: Path, sets: Sequence[Path], seconds: float) -> str:
    """Return the table of held-out losses and where the files are."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    evaluations = [row for row in rows if row["event"] == "eval"]
    ends = [row["step"] for row in rows if row["event"] == "end" and row["reason"] == "finished"]
    entropies = [unigram_entropy(open_shards(path, "eval")) for path in sets]
    after_first = next(
        row for row in evaluations if row["step"] == ends[0]
    )  # phase 2 begins with a row of that step too
    lines = [
        "held-out masked-LM loss, nats a token       loss   unigram entropy   under it",
        _loss_line("untrained", evaluations[0], entropies[0]),
        _loss_line(f"after phase 1 ({ends[0]} updates)", after_first, entropies[0]),
        _loss_line(f"after phase 2 ({evaluations[-1]['step']} updates)", evaluations[-1], entropies[1]),
        "",
        f"model        {run / 'model'}    (opens in transformers; fills masks with python -m bert_pytorch.predict)",
        f"checkpoints  {run / 'pretrain_ckpts'}",
        f"curves       tensorboard --logdir {run / 'tensorboard'}",
        f"time         {seconds // 60:.0f} min {seconds % 60:.0f} s",
    ]
    return "\n".join(lines) + "\n"


def _loss_line(name: str, row: dict[str, Any], entropy: float) -> str:
    return f"  {name:40} {row['mlm_loss']:6.3f} {entropy:17.3f} {entropy - row['mlm_loss']:10.3f}"


def _docstrings(path: Path) -> str:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return ""  # a template or a file for another interpreter
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds)]
    return "\n\n".join(docstring for docstring in docstrings if docstring)


def _short(path: Path) -> Path:
    """Return a path that holds from the repository's folder, where the commands run."""
    path = path.resolve()
    return path.relative_to(REPOSITORY) if path.is_relative_to(REPOSITORY) else path


def _encoded_set(corpus: Path, length: int) -> Path:
    return corpus / "encoded" / f"sequences_lowercase_max_seq_len_{length}_next_seq_task_true"


def _run(words: Sequence[str | Path]) -> None:
    command = [str(word) for word in words]
    _say("   $ " + shlex.join(command))
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(REPOSITORY)}
    code = subprocess.run(command, cwd=REPOSITORY, env=environment, check=False).returncode
    if code != 0:
        raise BertPytorchError(
            f"the command above ended with exit code {code}; start the quickstart again to continue."
        )


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n" if text.startswith(" ") else f"\n{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(front_door(main))
