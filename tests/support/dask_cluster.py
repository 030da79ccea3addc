"""A Dask cluster of real processes on this machine, started as its documentation says."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.data import REPOSITORY


class DaskCluster:
    """A scheduler and its workers, of one thread each and without a nanny: a killed one stays dead."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.scheduler_file = folder / "scheduler.json"
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self._start("scheduler", "--port", "0", "--host", "127.0.0.1", "--no-dashboard", "--no-show", **env)
        self.workers: list[subprocess.Popen[bytes]] = []

    def add_worker(self, pythonpath: Path = REPOSITORY, **env: str) -> "subprocess.Popen[bytes]":
        words = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(self._folder))
        self.workers.append(self._start("worker", *words, cwd=self._folder, PYTHONPATH=str(pythonpath), **env))
        return self.workers[-1]

    def _start(self, what: str, *words: str, cwd: Path = REPOSITORY, **env: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "dask", what, "--scheduler-file", str(self.scheduler_file), *words]
        with (self._folder / f"{what}_{len(self._processes)}.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=cwd, env=os.environ | env, stdout=log, stderr=log)
        self._processes.append(process)
        return process

    def kill_scheduler(self) -> None:
        self._processes[0].kill()

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


@contextlib.contextmanager
def dask_cluster(folder: Path, workers: int, **env: str) -> Iterator[DaskCluster]:
    """Start a cluster and wait until its workers are there; skip the test without `distributed`.

    Args:
        folder: for its files.
        workers: how many to start with.
        env: the scheduler's environment, for Dask's settings.
    """
    distributed = pytest.importorskip("distributed", reason="needs distributed (requirements-extras.txt)")
    folder.mkdir(parents=True, exist_ok=True)
    cluster = DaskCluster(folder, **env)
    try:
        for _ in range(workers):
            cluster.add_worker()
        wait_until(cluster.scheduler_file.exists)
        if workers:
            with distributed.Client(scheduler_file=str(cluster.scheduler_file), set_as_default=False) as client:
                client.wait_for_workers(workers, timeout=60)
        yield cluster
    finally:
        cluster.end()


def wait_until(true: object, seconds: float = 60) -> None:
    """Wait until a function returns something true."""
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"waited {seconds} s in vain"
        time.sleep(0.01)
