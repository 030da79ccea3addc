"""`--init_checkpoint` by a model's name on the Hugging Face hub, from a server on this machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bert_pytorch.downloads.named_models import local_source
from bert_pytorch.errors import InputError
from bert_pytorch.interop.huggingface import export_huggingface
from bert_pytorch.interop.sources import load_source
from bert_pytorch.models.bert import BertForPreTraining
from tests.support.hub_server import Hub, hub_server
from tests.support.packed_batches import small_config
from tests.support.vocabularies import small_vocabulary

VOCABULARY = small_vocabulary()


@pytest.fixture(scope="module")
def running() -> Iterator[Hub]:
    with hub_server() as hub:
        yield hub


@pytest.fixture
def hub(running: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    running.asked.clear()
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return running


def test_a_model_of_the_hub_is_fetched_once_and_loads(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "max_position_embeddings": 8}
    model = BertForPreTraining(small_config(vocab_size=len(VOCABULARY.tokens), **tiny), seed=4)
    export_huggingface(tmp_path / "made", model.state_dict(), model.config, VOCABULARY)
    hub.add(
        "models", "some/encoder", {"main": {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}}
    )
    folder = local_source(Path("some/encoder"))
    assert folder == tmp_path / "cache" / "bert_pytorch" / "models" / "some--encoder"
    found = load_source(folder)
    assert all(torch.equal(found.state_dict[name], tensor) for name, tensor in model.state_dict().items())
    hub.asked.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert local_source(Path("some/encoder")) == folder
    assert not hub.asked


def test_without_a_network_the_error_says_how_to_fetch_it(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    wanted = "corpus download huggingface_bert --name google-bert/bert-base-uncased --output DIR"
    with pytest.raises(InputError, match=wanted):
        local_source(Path("google-bert/bert-base-uncased"))
    assert not hub.asked


def test_a_model_that_the_hub_does_not_have_is_told(hub: Hub) -> None:
    with pytest.raises(InputError, match="no such file or folder, and the model of that name"):
        local_source(Path("nobody/nothing"))


@pytest.mark.parametrize("name", ["runs/misspelled", "a/b/c", "word", "/tmp/none", "../up/there", "weights/ckpt_1.pt"])
def test_paths_are_never_looked_for_on_the_hub(hub: Hub, tmp_path: Path, name: str) -> None:
    (tmp_path / "runs").mkdir()
    assert local_source(Path(name)) == Path(name)
    assert not hub.asked
