"""Worker processes on this machine, each with one task at a time, so that a killed one names its task.

`concurrent.futures` gives up every task when one process dies and cannot say whose it was.
"""

import contextlib
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from bert_pytorch.errors import WorkerError
from bert_pytorch.files import admit_workers
from bert_pytorch.workers.executor import Outcome, WorkerLostError, perform, portable

_READY = "ready"
_SECONDS_TO_END = 5.0


class LocalPool:
    """An executor of at most `processes` worker processes, started as tasks come."""

    def __init__(self, work: Callable[[Any], Any], processes: int) -> None:
        self.capacity = processes
        self._arguments = (work, admit_workers())
        self._workers: list[_Worker] = []
        self._any_was_ready = False
        self._ended_at_start = 0

    def submit(self, number: int, task: Any) -> None:
        """Give a task to an idle worker, or to a new one."""
        for worker in [worker for worker in self._workers if worker.job is None]:
            if worker.give(number, task):
                return
            self._forget(worker)  # killed while idle
        worker = _Worker(*self._arguments)
        self._workers.append(worker)
        worker.give(number, task)

    def wait(self, seconds: float) -> list[Outcome]:
        """Return the outcomes since the last call.

        Raises:
            WorkerError: if worker processes end before they can do anything.
        """
        owners = {handle: worker for worker in self._workers for handle in (worker.pipe, worker.process.sentinel)}
        ready = multiprocessing.connection.wait(list(owners), seconds)
        outcomes = []
        for worker in dict.fromkeys(owners[handle] for handle in ready):  # type: ignore[index]
            job = worker.job
            try:
                outcome = worker.receive()
            except (EOFError, OSError):
                self._forget(worker)
                outcome = Outcome(job[0], None, self._why_lost(worker)) if job is not None else None
            self._any_was_ready |= worker.ready
            if outcome is not None:
                outcomes.append(outcome)
        return outcomes

    def _why_lost(self, worker: "_Worker") -> WorkerError:
        code = worker.process.exitcode or 0
        if code < 0:
            return WorkerLostError(
                f"its worker process was killed by {_signal_name(-code)}; the usual reason is too little memory: start "
                "again with fewer --processes."
            )
        if not worker.ready and not self._any_was_ready:
            self._ended_at_start += 1
            others_live = any(other.process.is_alive() for other in self._workers)
            if others_live and self._ended_at_start < self.capacity:
                return WorkerLostError(f"its worker process ended with exit code {code}; see what it printed.")
            raise WorkerError(f"worker processes end as soon as they start (exit code {code}); see what they printed.")
        return WorkerLostError(f"its worker process ended with exit code {code}; see what it printed.")

    def _forget(self, worker: "_Worker") -> None:
        self._workers.remove(worker)
        worker.end(at_once=True)

    def __enter__(self) -> "LocalPool":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        for worker in self._workers:
            worker.ask_to_end(at_once=kind is not None)
        for worker in self._workers:
            worker.end(at_once=False)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


class _Worker:
    """One process and the task that it has."""

    def __init__(self, work: Callable[[Any], Any], admitted: Mapping[Path, str]) -> None:
        context = multiprocessing.get_context("spawn")  # forked children inherit HDF5's and the tokenizer's locks
        self.pipe, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(target=_serve, args=(theirs, work, admitted), daemon=True)
        self.ready = False
        self.job: tuple[int, Any] | None = None
        # Ctrl-C reaches the whole group, while imports run too; the parent ends its workers itself.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    def give(self, number: int, task: Any) -> bool:
        """Send a task, once the process is up: a large one fills the pipe; False if the process is gone."""
        self.job = (number, task)
        if self.ready:
            try:
                self.pipe.send(task)
            except OSError:
                return False
        return True

    def receive(self) -> Outcome | None:
        """Read what the process says; OSError or EOFError if it has ended."""
        if not self.pipe.poll():
            raise EOFError
        said = self.pipe.recv()
        if said == _READY:
            self.ready = True
            if self.job is not None:
                self.pipe.send(self.job[1])
            return None
        assert self.job is not None
        number, self.job = self.job[0], None
        return Outcome(number, *said)

    def ask_to_end(self, at_once: bool) -> None:
        """Close the door: the process ends after its task, or at once."""
        self.pipe.close()
        if at_once:
            self.process.terminate()

    def end(self, at_once: bool) -> None:
        """Return when the process has ended."""
        self.pipe.close()
        if not at_once:
            self.process.join(_SECONDS_TO_END)
        if self.process.exitcode is None:
            self.process.kill()
        self.process.join()


def _serve(pipe: Connection, work: Callable[[Any], Any], admitted: Mapping[Path, str]) -> None:
    """Do tasks until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one core a process
    logging.getLogger().setLevel(logging.WARNING)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        pipe.send(_READY)
        while True:
            try:
                task = pipe.recv()
            except (EOFError, OSError):
                return
            except Exception as error:  # the task cannot be unpickled here
                pipe.send((None, portable(error)))
                continue
            outcome = perform(work, task, admitted)
            try:
                pipe.send(outcome)
            except OSError:
                return
            except Exception as error:  # the result cannot be pickled
                pipe.send((None, portable(error)))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)  # the parent was killed: the task in work would go on for nobody
