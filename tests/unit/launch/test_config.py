"""Which words are the launcher's, which the script's, and which a phase's."""

from pathlib import Path

import pytest

from bert_pytorch.errors import ConfigError
from bert_pytorch.launch.commands import network_variables
from bert_pytorch.launch.config import CHECK, REPOSITORY, read_request
from bert_pytorch.launch.phases import output_folder, read_ends, value_of, words_of_phase

SCRIPT = str(REPOSITORY / "run_pretraining.py")


def test_words_after_the_script_are_its_own_as_they_are() -> None:
    request = read_request(["--dry-run", "--nodes=n1,n2", SCRIPT, "--phase", "2", "", "a b", "--dry_run"], {})
    assert (request.config.dry_run, request.config.nodes, request.config.phase) == (True, "n1,n2", None)
    assert request.words == ("--phase", "2", "", "a b", "--dry_run")


def test_a_given_script_takes_all_words_after_the_launchers() -> None:
    request = read_request(["--script", SCRIPT, "--phase", "both", "--seed", "1", "--port", "3"], {})
    assert (str(request.script), request.config.phase, request.words) == (
        SCRIPT,
        "both",
        ("--seed", "1", "--port", "3"),
    )


@pytest.mark.parametrize(
    "words",
    [
        ["check", "--nodes", "n1,n2", "--dry-run", "--device", "cpu", "--as_json"],
        ["check", "--device", "cpu", "--nodes", "n1,n2", "--as_json", "--dry-run"],
        ["check", "--device", "cpu", "--as_json", "--dry-run", "--nodes=n1,n2"],
    ],
)
def test_the_launchers_words_may_stand_anywhere_after_check(words: list[str]) -> None:
    request = read_request(words, {})
    assert request.script == CHECK
    assert (request.config.nodes, request.config.dry_run) == ("n1,n2", True)
    assert request.words == ("--device", "cpu", "--as_json")


@pytest.mark.parametrize("name", ["eth0;id", "a" * 16, "", "^docker"])
def test_an_interface_is_a_name(name: str) -> None:
    with pytest.raises(ConfigError, match="interface"):
        read_request(["--interface", name, SCRIPT], {})


def test_an_interface_is_told_to_gloo_and_exactly_to_nccl() -> None:
    config = read_request(["--interface", "hsn0", SCRIPT], {}).config
    assert network_variables(config.interface) == {"GLOO_SOCKET_IFNAME": "hsn0", "NCCL_SOCKET_IFNAME": "=hsn0"}
    assert network_variables(read_request([SCRIPT], {}).config.interface) == {}


def test_scripts_of_the_repository_are_found_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_request(["run_glue.py"], {}).script == REPOSITORY / "run_glue.py"


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        (["--nodes", "n1"], {}, "where a script is wanted"),
        (["--nprocs", "2", SCRIPT], {}, "found --nprocs"),
        (["nowhere.py"], {}, "no such script"),
        ([SCRIPT], {"PHASE": "3"}, "wanted 1, 2 or both"),
        (["--nproc_per_node", "0", SCRIPT], {}, "nproc_per_node"),
        (["--phase", "1", "run_squad.py"], {}, "only run_pretraining.py has phases"),
    ],
)
def test_wrong_words_are_told(words: list[str], environment: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_request(words, environment)


def test_phase_stands_in_the_environment_too_and_the_option_comes_first() -> None:
    assert read_request([SCRIPT], {"PHASE": "2"}).config.phase == "2"
    assert read_request(["--phase", "1", SCRIPT], {"PHASE": "2"}).config.phase == "1"


WORDS = [
    "--input_dir_phase1",
    "a",
    "b",
    "--input-dir-phase2=c d",
    "--config_file",
    "x.json",
    "--fp16",
    "--seed_phase2",
    "3",
]


def test_each_phase_gets_its_own_and_what_is_common() -> None:
    assert words_of_phase(WORDS, "1") == ["--input_dir", "a", "b", "--config_file", "x.json", "--fp16"]
    assert words_of_phase(WORDS, "2") == ["--input-dir=c d", "--config_file", "x.json", "--fp16", "--seed", "3"]


@pytest.mark.parametrize("phase", ["1", "2"])
def test_a_phase_without_a_configuration_takes_its_own_shipped_one(phase: str) -> None:
    found = value_of(words_of_phase(["--seed", "1"], phase), "config_file")
    assert found is not None
    assert Path(found).name == f"bert_large_uncased_phase{phase}.json"
    assert Path(found).is_file()


def test_the_output_folder_is_the_one_that_pretraining_takes(tmp_path: Path) -> None:
    config = tmp_path / "large.json"
    config.write_text('{"output_dir": "runs/{run_name}"}')
    assert output_folder(["--config_file", str(config)]) == Path("runs/large")
    assert output_folder([f"--config-file={config}", "--run_name", "x"]) == Path("runs/x")
    assert output_folder([f"--config-file={config}", "--output-dir", "y/{run_name}"]) == Path("y/large")
    assert output_folder(["--seed", "1"]) is output_folder(["--output_dir"]) is output_folder([]) is None


def test_ends_are_read_with_their_phases_past_a_broken_last_line(tmp_path: Path) -> None:
    rows = [
        '{"event": "start", "phase": 1}', '{"event": "end", "reason": "signal"}',
        '{"event": "start", "phase": 1}', '{"event": "end", "reason": "finished"}',
        '{"event": "start", "phase": 2}', '{"event": "end", "reason": "time_limit"}', '{"event": "end", "reas',
    ]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text("\n".join(rows))
    ends = read_ends(tmp_path)
    assert ends.reasons == ("signal", "finished", "time_limit")
    assert ends.finished_phases == {1}
    assert read_ends(tmp_path / "nowhere") == read_ends(None) == ((), frozenset())
