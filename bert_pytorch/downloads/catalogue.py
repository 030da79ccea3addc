"""All sources by name, and the table of them that people read."""

from typing import NamedTuple

from bert_pytorch.downloads.anywhere import HUGGINGFACE, HUGGINGFACE_BERT, S3, URL
from bert_pytorch.downloads.benchmarks import GLUE, SQUAD
from bert_pytorch.downloads.books import BOOKSCORPUS, GUTENBERG
from bert_pytorch.downloads.c4 import C4
from bert_pytorch.downloads.source import Source
from bert_pytorch.downloads.weights import GOOGLE_BERT
from bert_pytorch.downloads.wikipedia import WIKIPEDIA

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        *(WIKIPEDIA, BOOKSCORPUS, GUTENBERG, C4, HUGGINGFACE, S3, URL),
        *(SQUAD, GLUE, GOOGLE_BERT, HUGGINGFACE_BERT),
    )
}


class LocalKind(NamedTuple):
    """Files of one's own that `format` reads without a download."""

    endings: str
    what: str


LOCAL_KINDS = (
    LocalKind(".txt", "text: one document a file, or documents with blank lines between them"),
    LocalKind(".jsonl, .json, .csv, .tsv, .parquet", "one document a row, in --text_field (.json: one object a line)"),
    LocalKind(".gz, .bz2, .zst after these", "the same, compressed (Parquet compresses itself)"),
    LocalKind(".xml.bz2", "a Wikipedia dump"),
    LocalKind("s3://bucket/prefix", "such files on S3: download s3 first"),
)


def sources_table(program: str) -> str:
    """Return the table of all sources; `program` is how the corpus tools are called."""
    width = max(len(name) for name in SOURCES)
    rows = [f"Sources of {program} download SOURCE --output DIR:", ""]
    for source in SOURCES.values():
        rows += [
            f"  {source.name:<{width}}  {source.what}",
            f"  {'':<{width}}  size: {source.size}; licence: {source.licence}",
            f"  {'':<{width}}  {program} download {source.name} --output DIR {source.options}",
            "",
        ]
    wide = max(len(kind.endings) for kind in LOCAL_KINDS)
    rows += [f"Your own files, {program} format --input …:", ""]
    rows += [f"  {kind.endings:<{wide}}  {kind.what}" for kind in LOCAL_KINDS]
    return "\n".join(rows)
