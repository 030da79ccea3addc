"""What the README tells a person to type works, in order, in a fresh copy of the repository."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers

from bert_pytorch.data.statistics import unigram_entropy
from bert_pytorch.shards.opening import open_shards
from tests.support.commands import run
from tests.support.data import REPOSITORY, real_encoder, real_texts, shared_data
from tests.support.readme import Block, bash_blocks
from tests.support.runs import metrics

README = REPOSITORY / "README.md"
NEVER_SKIPPED = {"quickstart", "own-corpus", "continued-encoder", "classifier", "glue", "entities", "squad"}
REVIEWS = 100
SECONDS_PER_COMMAND = 600


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Copy the files that git knows, as they are now, and put a person's own text and encoder beside them."""
    folder = tmp_path_factory.mktemp("readme") / "bert_pytorch"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: which files belong to the repository is unknown")
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name)
    (folder / "my_text").mkdir()
    for path in sorted(shared_data("text", "state_union").glob("*.txt"))[:40]:
        shutil.copy(path, folder / "my_text")
    with (folder / "my_texts.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "text"])
        rows.writerows(enumerate(real_texts("movie_reviews", REVIEWS)))
    (folder / "my_texts.txt").write_text(
        "\n".join(" ".join(text.split()[:100]) for text in real_texts("movie_reviews", 20))
    )
    for name, part in (("train", "eng.train"), ("val", "eng.testa")):
        sentences = shared_data("ner", "conll2003", part).read_text(encoding="utf-8").split("\n\n")[:120]
        (folder / f"entities_{name}.conll").write_text("\n\n".join(sentences), encoding="utf-8")
    shutil.copytree(real_encoder(), folder / "my_encoder")
    for name, part in (("my_labelled", slice(0, 40)), ("my_labelled_val", slice(40, 55))):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["text", "label"])
            for label, source in (("review", "movie_reviews"), ("address", "inaugural")):
                rows.writerows([text[:600], label] for text in real_texts(source, 55)[part])
    shutil.copytree(shared_data("glue"), folder / "glue")
    article = json.loads(shared_data("squad", "notre_dame.json").read_text(encoding="utf-8"))["data"][0]["paragraphs"]
    for name, paragraphs in (("train", article[:20]), ("dev", article[20:25])):
        content = {"data": [{"title": name, "paragraphs": paragraphs}]}
        (folder / f"squad_{name}.json").write_text(json.dumps(content), encoding="utf-8")
    yield folder
    shutil.rmtree(folder)


def test_commands_that_may_not_be_skipped_are_there_and_run():
    named = {block.name for block in bash_blocks(README.read_text(encoding="utf-8")) if block.name}
    assert named == NEVER_SKIPPED


@pytest.mark.slow
def test_every_command_of_the_readme_runs_and_the_quickstart_learns_from_context(sandbox, capsys):
    blocks = bash_blocks(README.read_text(encoding="utf-8"))
    ran, skipped, failed = 0, 0, []
    for block in blocks:
        for command in block.commands:
            if block.skip_reason:
                skipped += 1
                report(capsys, f"README line {block.line}: skipped, {block.skip_reason}: {command}")
                continue
            ran += 1
            if problem := problem_of(command, block, sandbox, capsys):
                failed.append(problem)
    report(capsys, f"README: {ran} commands run, {skipped} skipped, {len(failed)} failed")
    assert not failed, "\n\n".join(failed)
    assert ran > 0

    quickstart = sandbox / "runs" / "quickstart"
    longest = max((quickstart / "corpus" / "encoded").iterdir(), key=lambda folder: int(folder.name.split("_")[5]))
    loss = metrics(quickstart / "run", "eval")[-1]["mlm_loss"]
    assert loss < unigram_entropy(open_shards(longest, "eval")) - 0.3
    assert_continued(sandbox)
    assert json.loads((sandbox / "runs" / "classifier" / "eval_results.json").read_text())["accuracy"] > 0.7
    assert set(json.loads((sandbox / "runs" / "glue" / "glue_results.json").read_text())) == {"mrpc", "cola", "average"}


def assert_continued(sandbox: Path) -> None:
    """The continued encoder opens in transformers, has learned from the text, and is still the one it was."""
    losses = [row["mlm_loss"] for row in metrics(sandbox / "runs" / "domain", "eval")]
    assert losses[-1] < losses[0] - 1
    before, after = (
        transformers.AutoModel.from_pretrained(sandbox / name) for name in ("my_encoder", "my_encoder_continued")
    )
    assert isinstance(after, transformers.BertModel)
    for name, start in before.state_dict().items():
        if "pooler" not in name and name.endswith("query.weight"):
            end = after.state_dict()[name]
            assert not torch.equal(start, end)
            assert torch.cosine_similarity(start.flatten(), end.flatten(), dim=0) > 0.99


def problem_of(command: str, block: Block, sandbox: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run one command as a person would type it; return what went wrong, empty if nothing did."""
    # The environment that runs this test is the active one, so that the scripts install nothing.
    programs = str(Path(sys.executable).parent)
    env = {
        "BERT_PYTORCH_PYTHON": sys.executable,
        "PATH": os.pathsep.join([programs, os.environ["PATH"]]),
        "PYTHONPATH": "",
        "OMP_NUM_THREADS": "2",
        "CI": "true",
    }
    try:
        result = run(["bash", "-euo", "pipefail", "-c", command], cwd=sandbox, env=env, timeout=SECONDS_PER_COMMAND)
    except TimeoutError as error:
        return f"README line {block.line}: {error}"
    report(capsys, f"README line {block.line}: exit code {result.code}, {result.seconds:.0f} s: {command}")
    return f"README line {block.line}: {result}" if result.code else ""


def report(capsys: pytest.CaptureFixture[str], line: str) -> None:
    """Show a line although the test passes: the counts are for people to see."""
    with capsys.disabled():
        print(f"\n{line}", end="", flush=True)
