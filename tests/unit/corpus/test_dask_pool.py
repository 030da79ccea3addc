"""Dask: the same bytes as on one machine, whatever happens to its workers; what cannot work is told before any work."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from bert_pytorch.corpus.executors import dask_checks, dask_pool, pool
from bert_pytorch.corpus.executors.dask_pool import absolute
from bert_pytorch.corpus.executors.pool import PoolConfig, run_tasks
from bert_pytorch.errors import InputError, MissingDependencyError, WorkerError
from bert_pytorch.files import admit_workers, atomic_write_text, exclusive_lock
from bert_pytorch.progress import Progress
from tests.support.dask_cluster import DaskCluster, dask_cluster, wait_until
from tests.support.data import REPOSITORY
from tests.unit.corpus.conftest import Tool, contents


class Piece(NamedTuple):
    """A task that writes one file."""

    number: int
    folder: Path

    def describe(self) -> str:
        return f"piece {self.number}"


def write_slowly(piece: Piece) -> int:
    time.sleep(0.15)
    atomic_write_text(piece.folder / f"piece_{piece.number}", f"{piece.number}\n")
    return os.getpid()


def write_when_told(piece: Piece) -> None:
    atomic_write_text(piece.folder / "begun", str(os.getpid()))
    while not (piece.folder / "go").exists():
        time.sleep(0.02)
    atomic_write_text(piece.folder / "piece", "old settings")


def refuse_odd(piece: Piece) -> int:
    if piece.number % 2:
        raise InputError(f"file {piece.number}: bad input")
    return piece.number


def run(work: object, folder: Path, cluster: DaskCluster, count: int = 6, retries: int = 2) -> list[int]:
    pieces = [Piece(number, folder) for number in range(count)]
    config = PoolConfig(scheduler=str(cluster.scheduler_file), retries=retries)
    return run_tasks(work, pieces, config, Piece.describe, Progress("test", count), lambda piece: 1)  # type: ignore[arg-type]


def test_formatting_on_a_cluster_makes_the_same_bytes(tool: Tool, raw_text: Path, tmp_path: Path) -> None:
    words = ["format", "--input", raw_text, "--splitter_sample_bytes", 200_000]
    assert tool(*words, "--output", tmp_path / "local", "--processes", 1).code == 0
    with dask_cluster(tmp_path / "cluster", workers=2) as cluster:
        said = tool(*words, "--output", tmp_path / "dask", "--scheduler", cluster.scheduler_file)
    assert said.code == 0, said.err
    assert contents(tmp_path / "dask") == contents(tmp_path / "local")


def test_a_lost_worker_is_replaced_and_failures_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    out = Path("out")  # relative: workers run elsewhere
    with dask_cluster(tmp_path / "cluster", workers=2) as cluster, exclusive_lock(out, "builds"):

        def kill_one_in_mid_work() -> None:
            wait_until(lambda: len(list(out.glob("piece_*"))) >= 3)
            cluster.workers[0].kill()

        threading.Thread(target=kill_one_in_mid_work).start()
        processes = run(write_slowly, out, cluster, count=24)
        assert {path.read_text() for path in out.glob("piece_*")} == {f"{number}\n" for number in range(24)}
        assert len(list(out.glob("piece_*"))) == 24
        assert set(processes) <= {worker.pid for worker in cluster.workers}
        assert processes[-1] == cluster.workers[1].pid

        with pytest.raises(InputError, match=r"^3 of 6 pieces of work failed.*\n  - piece 1: file 1: bad input\n"):
            run(refuse_odd, out, cluster)


def kill_at_two(piece: Piece) -> int:
    if piece.number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return piece.number


def test_a_task_that_kills_its_workers_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_FIRST_PAUSE_SECONDS", 0.01)
    none_allowed = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
    with (
        dask_cluster(tmp_path / "cluster", workers=3, **none_allowed) as cluster,
        pytest.raises(WorkerError, match=r"^piece 2: every Dask worker that had it in work was lost.*--memory-limit"),
    ):
        run(kill_at_two, tmp_path, cluster, retries=1)


def test_a_lost_scheduler_is_told(tool: Tool, tmp_path: Path) -> None:
    with dask_cluster(tmp_path / "cluster", workers=1) as cluster:
        started = time.monotonic()
        threading.Timer(0.5, cluster.kill_scheduler).start()
        with pytest.raises(WorkerError, match=r"^the Dask scheduler at \S+ is gone, .*give the same command\.$"):
            run(write_slowly, tmp_path, cluster, count=100)
        assert time.monotonic() - started < 10


def test_workers_that_run_other_code_or_none_are_refused(tmp_path: Path) -> None:
    package = tmp_path / "other" / "bert_pytorch"
    shutil.copytree(REPOSITORY / "bert_pytorch", package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "corpus" / "sentences.py").open("a").write("# a local change\n")
    with dask_cluster(tmp_path / "cluster", workers=0) as cluster, exclusive_lock(tmp_path / "out", "builds"):
        with pytest.raises(WorkerError, match=r"has no worker\. Start some: dask worker .* --nthreads 1"):
            run(refuse_odd, tmp_path, cluster)
        cluster.add_worker(pythonpath=tmp_path / "cluster")
        cluster.add_worker(pythonpath=tmp_path / "other")
        for number in (1, 2):
            log = cluster.scheduler_file.parent / f"worker_{number}.log"
            wait_until(lambda log=log: "Registered to" in log.read_text())
        with pytest.raises(WorkerError, match=r"Dask workers must run this bert_pytorch") as raised:
            run(refuse_odd, tmp_path, cluster)
    lines = str(raised.value).splitlines()[1:]
    assert len(lines) == 2
    assert sum("No module named" in line for line in lines) == 1
    assert sum(line.endswith("has other source code of it") for line in lines) == 1


def test_a_worker_says_what_it_does_not_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_checks, "_SECONDS_TO_SEE_A_FILE", 0.0)
    (tmp_path / "a").write_text("text")
    with exclusive_lock(tmp_path / "out", "builds"):
        admitted = admit_workers()
        seen = dask_checks.facts(admitted, {tmp_path / "a": 4})
        unlike = dask_checks.facts({tmp_path / "out": "somebody", tmp_path / "no": "x"}, {tmp_path / "a": 5})
    assert seen.unseen == []
    assert unlike.unseen == [str(tmp_path / name) for name in ("out", "no", "a")]
    assert dask_checks.facts(admitted, {}).unseen == [str(tmp_path / "out")], "the lock is held no more"


def test_a_scheduler_that_is_not_there(
    tool: Tool, raw_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_pool, "_SECONDS_TO_CONNECT", 1.0)
    pytest.importorskip("distributed", reason="needs distributed (requirements-extras.txt)")
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    words = ["format", "--input", raw_text, "--output", tmp_path / "out", "--splitter_sample_bytes", 100_000]
    said = tool(*words, "--scheduler", f"tcp://127.0.0.1:{port}")
    assert said.code == 1
    assert f"cannot reach a Dask scheduler at tcp://127.0.0.1:{port}" in said.err
    assert "dask scheduler" in said.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"], "told before any work"
    assert "Traceback" not in said.err


def test_a_machine_without_distributed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    config = PoolConfig(scheduler="tcp://127.0.0.1:1")
    with pytest.raises(MissingDependencyError, match=r"pip install -r requirements-extras\.txt"):
        run_tasks(refuse_odd, [Piece(0, tmp_path)], config, str, Progress("x", 1), lambda piece: 1)


ABANDONED = """
import sys
from pathlib import Path
from bert_pytorch.corpus.executors.pool import PoolConfig, run_tasks
from bert_pytorch.progress import Progress
from bert_pytorch.files import exclusive_lock
from tests.unit.corpus.test_dask_pool import Piece, write_when_told

folder, scheduler = Path(sys.argv[1]), sys.argv[2]
with exclusive_lock(folder, "builds"):
    pieces = [Piece(number, folder) for number in range(4)]
    run_tasks(write_when_told, pieces, PoolConfig(scheduler=scheduler), str, Progress("x", 1), lambda piece: 1)
"""


def test_a_worker_of_a_killed_start_never_writes_into_the_next_ones_work(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with dask_cluster(tmp_path / "cluster", workers=1) as cluster:
        command = [sys.executable, "-c", ABANDONED, str(out), str(cluster.scheduler_file)]
        first = subprocess.Popen(command, cwd=REPOSITORY, env=os.environ | {"PYTHONPATH": str(REPOSITORY)})
        wait_until((out / "begun").exists)
        first.send_signal(signal.SIGKILL)
        first.wait()
        threading.Timer(1.5, (out / "go").touch).start()
        with exclusive_lock(out, "builds"):
            assert (out / "go").exists(), "the lock waits for the worker of the killed start"
            assert (out / "piece").read_text() == "old settings"
            (out / "piece").unlink()
            run(write_slowly, out, cluster, count=2)
            time.sleep(0.5)
            assert not (out / "piece").exists(), "what the killed start had queued is not begun"
        assert sorted(path.name for path in out.iterdir()) == [".lock", "begun", "go", "piece_0", "piece_1"]


def test_versions_of_all_that_decides_bytes_are_compared() -> None:
    compared = dask_checks.facts({}, {}).versions
    pinned = "".join((REPOSITORY / name).read_text() for name in ("requirements.txt", "requirements-extras.txt"))
    extras = {"tokie", "nupunkt", "wikiextractor", "charset-normalizer", "pyarrow", "zstandard"}
    assert extras <= set(compared)
    assert all(f"\n{name}=" in f"\n{pinned}" for name in set(compared) - {"Python"})


def test_paths_inside_a_task_become_absolute() -> None:
    here = Path.cwd()
    task = Piece(3, Path("a")), {"b": [Path("c"), "d"]}, (Path("/e"),)
    assert absolute(task) == (Piece(3, here / "a"), {"b": [here / "c", "d"]}, (Path("/e"),))
