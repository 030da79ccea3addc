"""For every test: few threads, no network of Hugging Face's, and property tests that repeat."""

import os
from pathlib import Path

# Before torch and tokenizers are imported: they read these once, and two cores are shared by many processes.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # without a GPU, Triton's kernels run in NumPy
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"

import signal  # noqa: E402
from collections.abc import Iterator  # noqa: E402

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # begun by a shell's `&`; programs that tests start inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("local", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that have tests of minutes, so that the processes of `-n` end at about the same time."""
    long_files = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long_files)


@pytest.fixture(autouse=True, scope="session")
def shard_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep decompressed shards of tests, and of the programs they start, out of the person's cache."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("BERT_PYTORCH_CACHE", str(tmp_path_factory.mktemp("shard_cache")))
        yield
