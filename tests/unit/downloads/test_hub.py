"""Datasets and models of the Hugging Face hub: choice of files, access, hostile answers, the token's secrecy."""

import glob
import hashlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_pytorch.downloads.hub import CONVERTED, _matches, hub_dataset_files, hub_model_files
from bert_pytorch.downloads.hub_api import hub_repository
from bert_pytorch.errors import BertPytorchError, ConfigError, InputError
from bert_pytorch.remote.errors import NotThere, Refused, TransferError, TransferInterrupted
from bert_pytorch.remote.json_api import get_json
from tests.support.hub_server import TOKEN, Hub, hub_server


@pytest.fixture(scope="module")
def running() -> Iterator[Hub]:
    with hub_server() as hub:
        yield hub


@pytest.fixture
def hub(running: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    running.repositories.clear()
    running.asked.clear()
    running.answers.clear()
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", running.endpoint + "/")
    monkeypatch.setattr("bert_pytorch.remote.json_api.time.sleep", lambda seconds: None)
    return running


def parquet(*names: str) -> dict[str, bytes]:
    return {name: f"{name} ".encode() * 20 for name in names}


def paths(name: str, **choice: Any) -> list[str]:
    return [file.path for file in hub_dataset_files(name, **choice)]


def test_a_converted_dataset_is_chosen_by_config_and_split(hub: Hub) -> None:
    whole = parquet(*(f"{c}/{s}/{i:04d}.parquet" for c in ("en", "de ü") for s in ("train", "test") for i in range(4)))
    divided = parquet("en/train-part0/0000.parquet", "en/train-part1/0000.parquet")
    hub.add("datasets", "o/d", {CONVERTED: {**whole, **divided}, "main": {"loader.py": b"import os"}})
    files = hub_dataset_files("o/d", "en")
    assert [file.path for file in files] == sorted([*(f"en/train/{i:04d}.parquet" for i in range(4)), *divided])
    for file in hub_dataset_files("o/d", "de ü", "all"):
        content = whole[file.path]
        assert file.size == len(content)
        assert file.checksum == f"sha256:{hashlib.sha256(content).hexdigest()}"
        with urlopen(file.urls[0]) as answer:
            assert answer.read() == content
    assert len(hub_dataset_files("o/d", "de ü", "all")) == 8
    with pytest.raises(InputError, match="has several configs; choose one of de ü, en"):
        hub_dataset_files("o/d")
    with pytest.raises(InputError, match="has no config 'fr'; choose one of de ü, en"):
        hub_dataset_files("o/d", "fr")
    with pytest.raises(InputError, match="no split 'dev'; choose one of test, train, or all"):
        hub_dataset_files("o/d", "en", "dev")


def test_a_part_is_never_taken_for_the_whole(hub: Hub) -> None:
    """As C4: above 5 GB only the beginning is converted; the card names the dataset's own files."""
    converted = parquet("en/partial-train/0000.parquet", "en/validation/0000.parquet", "tiny/train/0000.parquet")
    own = parquet("en/c4-train.0.json.gz", "en/c4-train.1.json.gz", "en/c4-validation.0.json.gz", "de/x.json.gz")
    splits = [
        {"split": "train", "path": "en/c4-train.*.json.gz"},
        {"split": "validation", "path": ["en/c4-validation.*.json.gz"]},
    ]
    card = {"configs": [{"config_name": "en", "default": True, "data_files": splits}, {"config_name": "tiny"}, 7]}
    hub.add("datasets", "o/c4", {CONVERTED: converted, "main": own}, card=card)
    train = ["en/c4-train.0.json.gz", "en/c4-train.1.json.gz"]
    assert paths("o/c4") == paths("o/c4", config="en") == train
    assert paths("o/c4", split="validation") == ["en/validation/0000.parquet"]
    assert paths("o/c4", split="all") == [*train, "en/validation/0000.parquet"]
    assert paths("o/c4", split="all", revision="main") == [*train, "en/c4-validation.0.json.gz"]
    assert paths("o/c4", config="tiny") == ["tiny/train/0000.parquet"]
    assert paths("o/c4", patterns=["d*/*.gz", "en/*valid*"]) == ["de/x.json.gz", "en/c4-validation.0.json.gz"]

    card = {"configs": [{"config_name": "en"}, {"config_name": "de", "data_files": "de/*"}]}
    hub.add("datasets", "o/failed", {CONVERTED: parquet("en/train/0000.parquet"), "main": own}, card=card)
    with pytest.raises(InputError, match="has several configs; choose one of de, en"):
        hub_dataset_files("o/failed")
    assert paths("o/failed", config="de") == ["de/x.json.gz"]

    hub.add("datasets", "o/undescribed", {CONVERTED: converted, "main": {"README.md": b""}})
    for split in ("train", "all"):
        with pytest.raises(InputError, match="only the first 5 GB of config 'en'"):
            hub_dataset_files("o/undescribed", "en", split)
    with pytest.raises(InputError, match="has several configs; choose one of en, tiny"):
        hub_dataset_files("o/undescribed")


@pytest.mark.parametrize(
    ("names", "card", "split", "chosen"),
    [
        (["a.txt", "train.jsonl", "x/b.jsonl", "dev.jsonl", "meta.json"], {}, "train", ["train.jsonl", "x/b.jsonl"]),
        (["valid/a.csv", "trainer/b.csv", "x-test-0.csv"], {}, "validation", ["valid/a.csv"]),
        (["valid/a.csv", "trainer/b.csv", "x-test-0.csv"], {}, "train", ["trainer/b.csv"]),
        (["a.txt.zst", "b.txt.zst"], {"configs": "nonsense"}, "all", ["a.txt.zst", "b.txt.zst"]),
        (["a.txt", "b/c.tsv"], {"configs": [{"config_name": "x", "data_files": "b/*.tsv"}]}, "train", ["b/c.tsv"]),
        (["a.txt", "b/c.tsv"], {"configs": [{"config_name": "x", "data_dir": "b"}]}, "train", ["b/c.tsv"]),
        (["a.x", "b.x"], {"configs": [{"config_name": "x", "data_files": {"q": ["b.x", 3]}}]}, "q", ["b.x"]),
        (["a.csv"], {"configs": [{"config_name": 1}, {"data_files": 2}, None]}, "train", ["a.csv"]),
    ],
)
def test_own_files_follow_the_card_else_their_names(
    hub: Hub, names: list[str], card: dict[str, Any], split: str, chosen: list[str]
) -> None:
    hub.add("datasets", "o/d", {"main": parquet(*names)}, card=card)
    assert paths("o/d", split=split) == chosen


def test_files_are_pinned_to_the_commit_of_the_revision(hub: Hub) -> None:
    hub.add("datasets", "o/d", {"main": parquet("a.txt"), "v1/x": parquet("b.txt")})
    (file,) = hub_dataset_files("o/d", revision="v1/x")
    commit = hub.repositories["datasets/o/d"]["commits"]["v1/x"]
    assert file.urls == (f"{hub.endpoint}/datasets/o/d/resolve/{commit}/b.txt",)
    with pytest.raises(NotThere, match=r"RevisionNotFound Invalid rev id: v2.*Check name and revision"):
        hub_dataset_files("o/d", revision="v2")
    with pytest.raises(NotThere, match=r"none of its 1 files match c\*\. It holds a\.txt"):
        hub_dataset_files("o/d", patterns=["c*"])
    hub.add("datasets", "o/images", {"main": parquet("a.png")})
    with pytest.raises(NotThere, match="no files of a kind that is read here"):
        hub_dataset_files("o/images")


@given(
    st.lists(st.sampled_from(["a", "b", "ab", "*", "**", "a*", "?", "[ab]", "*b"]), min_size=1, max_size=5).filter(
        lambda globs: any(set("*?[") & set(part) for part in globs)
    )
)
def test_globs_mean_what_pythons_own_mean(a_folder: Path, globs: list[str]) -> None:
    pattern = "/".join(globs)
    files_below = f"{pattern}/*" if globs[-1] == "**" else pattern  # Python's also gives what is no folder
    matched = glob.glob(files_below, root_dir=a_folder, recursive=True)  # noqa: PTH207
    expected = {found for found in matched if (a_folder / found).is_file()}
    every = [str(path.relative_to(a_folder)) for path in a_folder.rglob("*") if path.is_file()]
    assert {path for path in every if _matches(path, pattern)} == {str(Path(found)) for found in expected}


@pytest.fixture(scope="module")
def a_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    for name in ("a", "b/a", "b/ab/b", "ab/a/b/a", "ab/b", "b/b/b/b", "ab/ab/ab"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    return folder


def test_hostile_globs_take_no_time() -> None:
    assert not _matches("/".join("a" * 200), "/".join(["**", "*a*a*a*a*a*a*a"] * 50) + "/b")


def test_a_model_is_its_configuration_vocabulary_and_best_weights(hub: Hub) -> None:
    common = {
        "config.json": b"{}",
        "vocab.txt": b"[PAD]",
        "tokenizer.json": b"{}",
        "README.md": b"",
        "onnx/m.onnx": b"x",
    }
    both = {**common, "model.safetensors": b"s" * 200, "pytorch_model.bin": b"p" * 200}
    hub.add("models", "o/new", {"main": both})
    hub.add("models", "o/old", {"main": {name: both[name] for name in both if "safe" not in name}})
    hub.add("models", "o/flax", {"main": {**common, "flax_model.msgpack": b""}})
    files = hub_model_files("o/new")
    assert [file.path for file in files] == ["config.json", "vocab.txt", "tokenizer.json", "model.safetensors"]
    assert [file.size for file in files] == [2, 5, 2, 200]
    assert files[-1].checksum == f"sha256:{hashlib.sha256(b's' * 200).hexdigest()}"
    assert files[0].checksum is None
    assert files[0].urls[0].startswith(f"{hub.endpoint}/o/new/resolve/")
    assert hub_model_files("o/old")[-1].path == "pytorch_model.bin"
    with pytest.raises(NotThere, match=r"has no model.safetensors and no pytorch_model.bin; it holds README.md"):
        hub_model_files("o/flax")


def test_the_token_opens_private_repositories_and_reaches_no_other_host(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("models", "o/m", {"main": {"config.json": b"{}", "model.safetensors": b"s" * 200}}, private=True)
    with pytest.raises(Refused, match=r"no such repository, or it is private or gated.*HF_TOKEN.*hf download o/m"):
        hub_model_files("o/m")
    monkeypatch.setenv("HF_TOKEN", f" {TOKEN}\n")
    files = hub_model_files("o/m")
    assert {token for _, _, token in hub.asked[1:]} == {f"Bearer {TOKEN}"}
    assert TOKEN not in repr(files)
    assert TOKEN not in str(files[0].secret_header)

    secret = files[-1].secret_header
    assert secret is not None
    assert secret.headers_for(files[-1].urls[0]) == {"Authorization": f"Bearer {TOKEN}"}
    port = hub.endpoint.rpartition(":")[2]
    for other in (
        hub.other_host,
        "https://huggingface.co/x",
        f"https://127.0.0.1:{port}",
        f"http://127.0.0.1:{port}0/",
    ):
        assert secret.headers_for(other) == {}
    assert secret.headers_for(f"http://127.0.0.1:{port}@evil.example/") == {}

    away = "/api/models/o/away/revision/main"
    hub.answers[away] = (302, {"Location": f"{hub.other_host}{away}/2"}, b"")
    hub.answers[f"{away}/2"] = (302, {"Location": f"{hub.endpoint}{away}/3"}, b"")
    hub.answers[f"{away}/3"] = (200, {}, b"[1]")
    hub.asked.clear()
    assert get_json(hub.endpoint + away, secret).value == [1]
    assert [(host, token is not None) for host, _, token in hub.asked] == [
        (hub.endpoint, True),
        (hub.other_host, False),
        (hub.endpoint, True),
    ]
    hub.answers[f"{away}/2"] = (302, {"Location": "http://[x:99999/"}, b"")
    with pytest.raises(TransferError, match="redirected to none"):
        get_json(hub.endpoint + away, secret)
    hub.repositories.clear()
    with pytest.raises(NotThere) as absent:
        hub_model_files("o/m")
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN}\r\nX: y")
    with pytest.raises(ConfigError) as wrong:
        hub_model_files("o/m")
    assert TOKEN not in str(absent.value) + str(wrong.value)


def test_what_a_person_must_do_is_said(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("datasets", "o/gated", {"main": parquet("a.txt")}, gated="manual")
    with pytest.raises(Refused, match=rf"accept the terms at {hub.endpoint}/datasets/o/gated, and set HF_TOKEN"):
        hub_dataset_files("o/gated")
    for name in ("", "a/b/c", "../x", "a/..", "a b", "a/b?x", "https://huggingface.co/a/b"):
        with pytest.raises(InputError, match="wanted owner/name"):
            hub_dataset_files(name)
    with monkeypatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(InputError, match=r"HF_HUB_OFFLINE is set.*--repo-type dataset --local-dir DIR"):
            hub_dataset_files("o/d")
        assert len(hub.asked) == 1
    for endpoint in ("file:///etc", "huggingface.co", "http://[x", "http://[::1"):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        with pytest.raises(ConfigError, match="HF_ENDPOINT"):
            hub_dataset_files("o/d")
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    with monkeypatch.context() as patch:
        patch.setattr("socket.getaddrinfo", no_name)
        with pytest.raises(TransferError, match=r"no such host hub.invalid.*`hf download o/d.*--input DIR") as told:
            hub_dataset_files("o/d")
    assert "Errno" not in str(told.value)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(TransferInterrupted, match=r"127.0.0.1 refuses the connection.*corpus format --input DIR"):
        hub_dataset_files("o/d")


@pytest.mark.parametrize(
    ("endpoint", "mirror", "sent"),
    [
        (None, None, True),
        (None, "https://huggingface.co/", True),
        ("https://hub.example", None, True),
        ("https://hub.example", "https://mirror.example", False),
        (None, "https://huggingface.co.example", False),
        ("http://hub.example", None, False),
        ("http://localhost:8000", None, True),
        (None, "http://localhost:8000", False),
    ],
)
def test_the_token_goes_only_where_the_person_chose_to_send_it(
    endpoint: str | None, mirror: str | None, sent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    if endpoint is not None:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    repository = hub_repository("datasets", "o/d", mirror)
    assert repository.endpoint == (mirror or endpoint or "https://huggingface.co").rstrip("/")
    assert (repository.token is not None) == sent


def no_name(*_: Any, **__: Any) -> None:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def test_a_busy_hub_is_asked_again(hub: Hub) -> None:
    hub.answers["/api/datasets/o/d/revision/main"] = (503, {}, b"")
    with pytest.raises(TransferInterrupted, match="answers 503"):
        hub_dataset_files("o/d")
    assert len(hub.asked) == 3


SHA = "a" * 40
FILE = {"type": "file", "size": 1, "path": "a.txt"}


@pytest.mark.parametrize(
    ("about", "tree", "said"),
    [
        (b"<html>", b"[]", "no JSON"),
        (b"[" * 100_000, b"[]", "no JSON"),
        (b"[]", b"[]", "does not answer as"),
        (b'{"sha": "../../x"}', b"[]", "does not answer as"),
        (None, b'{"a": 1}', "does not answer as"),
        (None, b'[{"type": "file"}]', "does not answer as"),
        (None, json.dumps([{**FILE, "path": "../../etc/x.txt"}]).encode(), "climbs out"),
        (None, json.dumps([{**FILE, "path": "/etc/x.txt"}]).encode(), "is absolute"),
        (None, json.dumps([FILE, {**FILE, "path": "a.txt/b.txt"}]).encode(), "lies below 'a.txt'"),
    ],
)
def test_hostile_answers_are_refused(hub: Hub, about: bytes | None, tree: bytes, said: str) -> None:
    good = json.dumps({"sha": SHA, "cardData": {"configs": {"x": 1}}}).encode()
    hub.answers["/api/datasets/o/d/revision/main"] = (200, {}, about or good)
    hub.answers[f"/api/datasets/o/d/tree/{SHA}"] = (200, {}, tree)
    with pytest.raises(BertPytorchError, match=said):
        hub_dataset_files("o/d", revision="main")


def test_sizes_and_checksums_of_the_wrong_kind_are_left_out(hub: Hub) -> None:
    hub.answers["/api/datasets/o/d/revision/main"] = (200, {}, json.dumps({"sha": SHA}).encode())
    odd = [{**FILE, "path": f"{i}.txt", "size": size, "lfs": lfs} for i, (size, lfs) in enumerate([(-1, 5), ("9", {})])]
    hub.answers[f"/api/datasets/o/d/tree/{SHA}"] = (200, {}, json.dumps(odd).encode())
    assert [(file.size, file.checksum) for file in hub_dataset_files("o/d", revision="main")] == [(None, None)] * 2


def test_a_list_without_end_is_given_up(hub: Hub) -> None:
    hub.answers["/api/datasets/o/d/revision/main"] = (200, {}, json.dumps({"sha": SHA}).encode())
    hub.answers[f"/api/datasets/o/d/tree/{SHA}"] = (200, {"Link": '<https://x/?cursor=1>; rel="next"'}, b"[]")
    with pytest.raises(TransferError, match="does not answer as"):
        hub_dataset_files("o/d", revision="main")
