"""The main job on real text: 14 MB of it, the real vocabulary, BERT-mini; it learns more than frequencies."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from bert_pytorch.data.statistics import unigram_entropy
from bert_pytorch.models.config import load_model_config
from bert_pytorch.shards.opening import open_shards
from tests.support.data import shared_data
from tests.support.runs import REPOSITORY, environment, metrics, words

UPDATES = 1400
BATCH = 8


@pytest.mark.slow
def test_bert_mini_is_a_tenth_of_a_nat_under_unigram_entropy_after_1400_updates_of_8_sequences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if importlib.util.find_spec("wikiextractor") is None:
        pytest.skip("the Wikipedia sample needs wikiextractor: pip install -r requirements-extras.txt")
    corpus, run = tmp_path / "corpus", tmp_path / "run"
    texts = [shared_data("text", name) for name in ("movie_reviews", "state_union", "inaugural")]
    dump = shared_data("wikipedia", "enwiki-sample-pages-articles.xml.bz2")
    build = [
        str(REPOSITORY / "scripts" / "create_datasets.sh"), "--output", str(corpus), "--nproc", "2",
        "--encode-type", "bert", "--input", *map(str, texts), str(dump),
        "--vocab_file", str(shared_data("vocab", "bert-base-uncased-vocab.txt")),
        "--max_seq_len", "128", "--eval_fraction", "0.05",
    ]  # fmt: skip
    subprocess.run(build, check=True, env=environment(PYTHON=sys.executable), capture_output=True)
    shards = corpus / "encoded" / "sequences_lowercase_max_seq_len_128_next_seq_task_true"
    model = tmp_path / "bert_mini_without_dropout.json"
    model.write_text(
        load_model_config("bert_mini_uncased").model_copy(update={"hidden_dropout_prob": 0.0}).model_dump_json()
    )
    flags = {
        "model_config_file": model, "input_dir": shards, "output_dir": run, "optimizer": "adamw",
        "learning_rate": 5e-4, "lr_decay": "linear", "lr_end": 0.1, "warmup_proportion": 0.1,
        "global_batch_size": BATCH, "local_batch_size": BATCH, "max_steps": UPDATES, "max_predictions_per_seq": 20,
        "skip_checkpoint": True,
    }  # fmt: skip
    command = [sys.executable, str(REPOSITORY / "run_pretraining.py"), *words(flags)]
    subprocess.run(command, check=True, env=environment(OMP_NUM_THREADS="2", MKL_NUM_THREADS="2"), capture_output=True)
    untrained, trained = (row["mlm_loss"] for row in metrics(run, "eval"))
    entropy = unigram_entropy(open_shards(shards, "eval"))
    with capsys.disabled():
        print(f"\nheld-out mlm_loss {untrained:.3f} → {trained:.3f} nats, unigram entropy {entropy:.3f}", end="")
    assert trained < entropy - 0.1
