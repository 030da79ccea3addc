"""`python -m bert_pytorch` lists the tools."""

import sys

TOOLS = (
    ("./scripts/quickstart.sh", "from raw text to a BERT that fills masks, on text that every Python carries"),
    ("./scripts/create_datasets.sh", "a corpus from your own text: vocabulary and shards"),
    ("python -m bert_pytorch.corpus", "the stages of that one by one: format, vocab, encode, verify, stats"),
    ("python run_pretraining.py", "pretrain, continue, or only evaluate"),
    (
        "./scripts/launch/torchrun.sh",
        "any program here on all GPUs, machines or a job; beside it scripts for schedulers",
    ),
    ("python -m bert_pytorch.launch check", "how fast the machines of a job and their network are, and which are slow"),
    ("python -m bert_pytorch.inspect", "look inside a shard, a run's batches, or this machine's environment"),
    ("python -m bert_pytorch.convert", "weights in and out: Hugging Face, NVIDIA's and the fork's checkpoints, ONNX"),
    ("python -m bert_pytorch.predict", "use a model: fill masks, answer questions, tag, classify and embed texts"),
)


def main() -> int:
    """Print each tool and what it is for."""
    width = max(len(command) for command, _ in TOOLS)
    lines = [f"  {command:{width}}  {purpose}" for command, purpose in TOOLS]
    sys.stdout.write("\n".join(["Tools of bert_pytorch; each explains itself with --help:", "", *lines, ""]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
