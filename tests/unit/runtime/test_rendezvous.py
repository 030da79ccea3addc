"""Ranks that meet, and ranks that do not: real stores, one thread or process a rank."""

import socket
import threading
import time
from pathlib import Path

import pytest
import torch.distributed as dist

from bert_pytorch.errors import BertPytorchError
from bert_pytorch.runtime.ranks import Meeting, Ranks
from bert_pytorch.runtime.rendezvous import meet, who_is_missing


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def meet_in_threads(meeting: Meeting, size: int) -> list[object]:
    stores: list[object] = [None] * size

    def join(rank: int) -> None:
        stores[rank] = meet(meeting, Ranks(rank, size), {}, 20)

    threads = [threading.Thread(target=join, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return stores


@pytest.mark.parametrize("kind", ["tcp", "file"])
def test_ranks_that_all_come_share_a_store(kind: str, tmp_path: Path) -> None:
    meeting = Meeting("127.0.0.1", free_port()) if kind == "tcp" else Meeting(file=tmp_path / "store")
    first, second = meet_in_threads(meeting, 2)
    first.set("word", "said")  # type: ignore[attr-defined]
    assert second.get("word") == b"said"  # type: ignore[attr-defined]


def test_who_waits_in_vain_is_told_who_did_not_come_in_time() -> None:
    meeting = Meeting("127.0.0.1", free_port(), hosts=("n1", "n2", "n3"))
    begun = time.monotonic()
    with pytest.raises(BertPytorchError, match="1 of 3 ranks joined") as caught:
        meet(meeting, Ranks(0, 3), {"SLURMD_NODENAME": "n1"}, 0.5)
    assert 0.5 <= time.monotonic() - begun < 5
    assert "missing: ranks 1, 2. None came from n2, n3." in str(caught.value)


def test_who_finds_nobody_at_the_meeting_is_told_where_it_was() -> None:
    port = free_port()
    begun = time.monotonic()
    with pytest.raises(BertPytorchError, match=f"rank 1 of 2 did not reach rank 0 at 127.0.0.1:{port} within 1 s"):
        meet(Meeting("127.0.0.1", port), Ranks(1, 2), {}, 1)
    assert time.monotonic() - begun < 20


def test_a_port_that_is_taken_is_told_by_rank_0() -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        with pytest.raises(BertPytorchError, match="rank 0 cannot listen at"):
            meet(Meeting("127.0.0.1", taken.getsockname()[1]), Ranks(0, 2), {}, 1)


def test_a_file_of_an_earlier_run_is_refused(tmp_path: Path) -> None:
    meeting = Meeting(file=tmp_path / "store")
    for said in ("1 of 2 ranks joined", "Remove the file"):
        with pytest.raises(BertPytorchError, match=said):
            meet(meeting, Ranks(0, 2), {}, 0.2)
        (tmp_path / "store").touch()


def test_processes_that_an_agent_started_anew_meet_anew_at_its_store() -> None:
    agent = dist.TCPStore("127.0.0.1", free_port(), None, True, wait_for_workers=False)
    meeting = Meeting("127.0.0.1", agent.port, hosted_by_agent=True)
    first, second = meet_in_threads(meeting, 2), meet_in_threads(meeting, 2)
    first[0].set("word", "old")  # type: ignore[attr-defined]
    assert not any(store.check(["word"]) for store in second)  # type: ignore[attr-defined]
    for rank in (0, 1):  # what the processes before left there is nobody's coming
        with pytest.raises(BertPytorchError, match=f"missing: rank {1 - rank}"):
            meet(meeting, Ranks(rank, 2), {}, 0.3)


def test_full_names_count_as_the_machines_of_the_list() -> None:
    text = who_is_missing({0: "n1.cluster", 1: "n1.cluster"}, 4, Meeting("n1", 1, hosts=("n1", "n2")), 600)
    assert "2 of 4 ranks joined at n1:1 within 600 s; missing: ranks 2, 3. None came from n2." in text
