"""What this machine is: processors, memory, file systems, compilers, drivers; from files and programs, no torch."""

import contextlib
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from bert_pytorch.runtime.cgroups import cpu_limit, memory_limit
from bert_pytorch.runtime.processors import count_cores, format_cpu_list, read_processors

LIBRARIES = (
    *("numpy", "h5py", "pydantic", "tyro", "tokenizers", "transformers", "triton", "tensorboard", "nltk", "tokie"),
    *("flash-attn", "pyarrow", "dask", "onnx", "onnxruntime", "habana-torch-plugin"),
)
COMPILERS = (("gcc", "--version"), ("g++", "--version"), ("clang", "--version"), ("nvcc", "--version"))
_PROGRAM_SECONDS = 3.0
_GIB = 1 << 30


def system_facts() -> dict[str, Any]:
    """Return the operating system, the interpreter and installed libraries."""
    name = platform.system()
    with contextlib.suppress(OSError):
        name = platform.freedesktop_os_release().get("PRETTY_NAME", name)
    return {
        "os": f"{name}, kernel {platform.release()}",
        "glibc": " ".join(platform.libc_ver()).strip() or "none",
        "python": f"{platform.python_version()} ({platform.python_compiler()})",
        **{name: version for name in LIBRARIES if (version := _version(name)) is not None},
    }


def processor_facts(root: Path = Path("/")) -> dict[str, Any]:
    """Return model, cores, NUMA nodes, this process's own and limits."""
    allowed = os.sched_getaffinity(0)
    processors = read_processors(allowed, root / "sys")
    nodes = sorted({processor.node for processor in processors})
    limit = cpu_limit(root)
    return {
        "model": _cpu_model(_text(root / "proc/cpuinfo")),
        "processors": os.cpu_count(),
        "usable": f"{len(allowed)} ({format_cpu_list(allowed)}), {count_cores(processors, allowed)} cores",
        "NUMA nodes": ", ".join(
            f"{node}: {format_cpu_list(each.number for each in processors if each.node == node)}" for node in nodes
        ),
        "limit of the container": "none" if limit is None else f"{limit:g} processors",
        "load": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def memory_facts(root: Path = Path("/")) -> dict[str, str]:
    """Return this machine's memory and the limit of this process's group."""
    sizes = {
        found[1]: int(found[2]) << 10
        for found in re.finditer(r"^(\w+):\s+(\d+) kB$", _text(root / "proc/meminfo"), re.MULTILINE)
    }
    limit = memory_limit(root)
    return {
        "total": _gib(sizes.get("MemTotal")),
        "available": _gib(sizes.get("MemAvailable")),
        "limit of the container": "none" if limit is None else _gib(limit),
    }


def folder_facts(folders: Iterable[Path], mounts: str | None = None) -> dict[str, str]:
    """Return the file system and the free space of each folder, or of the nearest one above that exists.

    Args:
        folders: the folders.
        mounts: text of /proc/mounts.
    """
    found = {}
    for folder in folders:
        here = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        usage = shutil.disk_usage(here)
        absent = "" if here == folder.absolute() else f"not there; {here}: "
        kind = file_system_of(here.resolve(), _text(Path("/proc/mounts")) if mounts is None else mounts)
        found[str(folder)] = f"{absent}{kind}, {_gib(usage.free)} of {_gib(usage.total)} free"
    return found


def file_system_of(folder: Path, mounts: str) -> str:
    """Return the kind of the file system that holds a folder: the last mount on the longest path above it."""
    kind, longest = "unknown", -1
    for line in mounts.splitlines():
        words = line.split()
        if len(words) >= 3:
            place = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), words[1]))
            if (folder == place or place in folder.parents) and len(place.parts) >= longest:
                kind, longest = words[2], len(place.parts)
    return kind


def compiler_facts() -> dict[str, str]:
    """Return the compilers in PATH: torch.compile and Triton need one."""
    found = {name: _program(name, option) for name, option in COMPILERS}
    return {name: _version_line(text) for name, text in found.items() if text} or {"none": "in PATH"}


def driver_facts() -> dict[str, Any]:
    """Return what NVIDIA's driver says about GPUs and the links between them, whether torch works or not."""
    query = "--query-gpu=index,name,memory.total,driver_version,pcie.link.gen.current,pcie.link.width.current"
    listed = _program("nvidia-smi", query, "--format=csv,noheader")
    if not listed:
        return {}
    return {"GPUs": listed.splitlines(), "links": _program("nvidia-smi", "topo", "-m").splitlines()}


def _version_line(text: str) -> str:
    """Return the line of a compiler's output that has its version: nvcc's last one but one, others' first."""
    return next((line for line in text.splitlines() if "release" in line), text.splitlines()[0]).strip()


def _program(name: str, *words: str) -> str:
    """Return what a program prints; empty if it is not there, fails or hangs."""
    path = shutil.which(name)
    if path is None:
        return ""
    return _output([path, *words])


def _output(command: Sequence[str]) -> str:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_PROGRAM_SECONDS, check=True
        )
        return done.stdout.strip()
    return ""


def _cpu_model(cpuinfo: str) -> str:
    found = re.search(r"^(?:model name|Model|cpu)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _gib(size: int | None) -> str:
    return "unknown" if size is None else f"{size / _GIB:.1f} GiB"


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
