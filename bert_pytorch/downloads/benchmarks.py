"""Data that models are fine-tuned on: SQuAD and GLUE."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from bert_pytorch.downloads.source import Download, DownloadConfig, Source, mirrored
from bert_pytorch.errors import InputError
from bert_pytorch.files import atomic_path
from bert_pytorch.remote.files import RemoteFile

# SQuAD-explorer's files; the same checksums in ParlAI's and others' download scripts.
_SQUAD = {
    "1.1": {
        "train-v1.1.json": (30_288_272, "3527663986b8295af4f7fcdff1ba1ff3f72d07d61a20f487cb238a6ef92fd955"),
        "dev-v1.1.json": (4_854_279, "95aa6a52d5d6a735563366753ca50492a658031da74f301ac5238b03966972c9"),
    },
    "2.0": {
        "train-v2.0.json": (42_123_633, "68dcfbb971bd3e96d5b46c7177b16c1a4e7d4bdef19fb204502738552dede002"),
        "dev-v2.0.json": (4_370_528, "80a5225e94905956a6446d296ca1093975c4d3b3260f1d6c8f68bc2ab77182d8"),
    },
}


class SquadConfig(DownloadConfig):
    """Fetch SQuAD's training and development files into v1.1/ and v2.0/."""

    version: Literal["1.1", "2.0", "all"] = "all"
    """Which version; 2.0 has questions without an answer."""


def plan_squad(config: SquadConfig) -> list[Download]:
    """Return the files of the versions asked for."""
    return [
        Download(
            RemoteFile(
                mirrored(("https://rajpurkar.github.io/SQuAD-explorer/dataset",), config, name),
                f"v{version}/{name}",
                size,
                f"sha256:{sha256}",
            )
        )
        for version, files in _SQUAD.items()
        if config.version in (version, "all")
        for name, (size, sha256) in files.items()
    ]


class _TaskFile(NamedTuple):
    place: str
    size: int
    sha256: str


# Sizes and checksums: glue's dataset_infos.json in huggingface/datasets, url_checksums/glue.txt in tensorflow/datasets.
_GLUE = {
    "CoLA": _TaskFile("CoLA.zip", 376_971, "f212fcd832b8f7b435fb991f101abf89f96b933ab400603bf198960dfc32cbff"),
    "SST-2": _TaskFile("SST-2.zip", 7_439_277, "d67e16fb55739c1b32cdce9877596db1c127dc322d93c082281f64057c16deaa"),
    "STS-B": _TaskFile("STS-B.zip", 802_872, "e60a6393de5a8b5b9bac5020a1554b54e3691f9d600b775bd131e613ac179c85"),
    "QQP": _TaskFile("QQP-clean.zip", 41_696_084, "40e7c862c04eb26ee04b67fd900e76c45c6ba8e6d8fab4f8f1f8072a1a3fbae0"),
    "MNLI": _TaskFile("MNLI.zip", 312_783_507, "e7c1d896d26ed6caf700110645df426cc2d8ebf02a5ab743d5a5c68ac1c83633"),
    "QNLI": _TaskFile("QNLIv2.zip", 10_627_589, "e634e78627a29adaecd4f955359b22bf5e70f2cbd93b493f2d624138a0c0e5f5"),
    "RTE": _TaskFile("RTE.zip", 697_150, "6bf86de103ecd335f3441bd43574d23fef87ecc695977a63b82d5efb206556ee"),
    "WNLI": _TaskFile("WNLI.zip", 28_999, "ae0e8e4d16f4d46d4a0a566ec7ecceccfd3fbfaa4a7a4b4e02848c0f2561ac46"),
}
_GLUE_PLAIN = {
    "MRPC": {
        "MRPC/msr_paraphrase_train.txt": _TaskFile(
            "senteval/senteval_data/msr_paraphrase_train.txt",
            1_047_044,
            "60a9b09084528f0673eedee2b69cb941920f0b8cd0eeccefc464a98768457f89",
        ),
        "MRPC/msr_paraphrase_test.txt": _TaskFile(
            "senteval/senteval_data/msr_paraphrase_test.txt",
            441_275,
            "a04e271090879aaba6423d65b94950c089298587d9c084bf9cd7439bd785f784",
        ),
        "MRPC/dev_ids.tsv": _TaskFile(
            "glue/data/mrpc_dev_ids.tsv", 6_222, "971d7767d81b997fd9060ade0ec23c4fc31cbb226a55d1bd4a1bac474eb81dc7"
        ),
    },
    "diagnostic": {
        "diagnostic/diagnostic.tsv": _TaskFile(
            "glue/data/AX.tsv", 222_257, "0e13510b1bb14436ff7e2ee82338f0efb0133ecf2e73507a697dc210db3f05fd"
        ),
    },
}

GlueTask = Literal["CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI", "QNLI", "RTE", "WNLI", "diagnostic"]


class GlueConfig(DownloadConfig):
    """Fetch and unpack GLUE's tasks, each into its own folder, in GLUE's file layouts."""

    tasks: tuple[GlueTask, ...] = (
        *("CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI", "QNLI", "RTE", "WNLI", "diagnostic"),
    )
    """Which tasks; all nine and the diagnostic set by default."""


def plan_glue(config: GlueConfig) -> list[Download]:
    """Return the tasks' archives and plain files."""
    return [item for task in dict.fromkeys(config.tasks) for item in _task_files(task, config)]


def _task_files(task: str, config: GlueConfig) -> Iterator[Download]:
    base = ("https://dl.fbaipublicfiles.com",)
    for path, (place, size, sha256) in _GLUE_PLAIN.get(task, {}).items():
        yield Download(RemoteFile(mirrored(base, config, place), path, size, f"sha256:{sha256}"))
    if task in _GLUE:
        place, size, sha256 = _GLUE[task]
        yield Download(
            RemoteFile(mirrored(base, config, f"glue/data/{place}"), f"{task}.zip", size, f"sha256:{sha256}"), task
        )


def divide_mrpc(folder: Path) -> None:
    """Make MRPC's train.tsv, dev.tsv and test.tsv of Microsoft's two files, as GLUE divides them, where they are new.

    dev_ids.tsv names the pairs of the training file that are held out.  Rows are taken over as they are; test.tsv gets
    a first column `index` for the label, which GLUE keeps back (it stays in msr_paraphrase_test.txt).
    """
    task = folder / "MRPC"
    names = ("msr_paraphrase_train.txt", "msr_paraphrase_test.txt", "dev_ids.tsv")
    if not all((task / name).is_file() for name in names):
        return
    header, *pairs = _rows(task / names[0])
    _, *tests = _rows(task / names[1])
    held_out = {(row[0], row[1]) for row in _rows(task / names[2]) if len(row) == 2}
    _write(task / "train.tsv", [header, *(row for row in pairs if (row[1], row[2]) not in held_out)])
    _write(task / "dev.tsv", [header, *(row for row in pairs if (row[1], row[2]) in held_out)])
    without_label = [[str(number), *row[1:]] for number, row in enumerate(tests)]
    _write(task / "test.tsv", [["index", *header[1:]], *without_label])


def _rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    if not rows or (path.suffix == ".txt" and any(len(row) != 5 for row in rows)):
        raise InputError(f"{path}: wanted tab-separated rows of MRPC. Remove it and start again.")
    return rows


def _write(path: Path, rows: Sequence[Sequence[str]]) -> None:
    text = "".join("\t".join(row) + "\n" for row in rows)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


SQUAD = Source(
    "squad",
    "SQuAD 1.1 and 2.0: questions on Wikipedia articles",
    "CC BY-SA 4.0",
    "82 MB",
    "--version all",
    SquadConfig,
    plan_squad,
)
GLUE = Source(
    "glue",
    "GLUE's nine tasks and its diagnostic set",
    "of each task's authors, most for research; see gluebenchmark.com",
    "376 MB",
    "--tasks CoLA MRPC",
    GlueConfig,
    plan_glue,
    divide_mrpc,
)
