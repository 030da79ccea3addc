"""The rules of the house hold in the package; and the checker that says so catches what breaks them."""

import json
import sys
from pathlib import Path

import pytest

from tests.architecture.house_rules import is_without_torch, violations
from tests.support.commands import run
from tests.support.data import REPOSITORY
from tests.support.import_graph import PACKAGE, read_package


def test_the_package_keeps_the_rules_of_the_house():
    problems = violations(read_package(REPOSITORY / PACKAGE))
    assert not problems, "\n" + "\n".join(problems)


def test_rooms_without_torch_do_not_load_it():
    modules = [module.name for module in read_package(REPOSITORY / PACKAGE).values() if is_without_torch(module)]
    modules = [name for name in modules if not name.endswith("__main__")]
    code = (
        "import importlib, json, sys\n"
        "loads = []\n"
        "for name in json.loads(sys.argv[1]):\n"
        "    importlib.import_module(name)\n"
        "    if 'torch' in sys.modules:\n"
        "        sys.exit(f'{name} loads torch')\n"
    )
    result = run([sys.executable, "-c", code, json.dumps(modules)])
    assert result.code == 0, result


@pytest.mark.parametrize(
    ("path", "source", "message"),
    [
        (
            "models/up.py",
            "from bert_pytorch.training import step",
            "models (level 3) imports bert_pytorch.training.step",
        ),
        (
            "models/side.py",
            "import bert_pytorch.optim.lamb",
            "models (level 3) imports bert_pytorch.optim.lamb (level 3)",
        ),
        (
            "models/late.py",
            "def f():\n    from bert_pytorch.training.step import update",
            "late.py:2: models (level 3) imports",
        ),
        ("config/up.py", "from bert_pytorch import files", "config (level 1) imports bert_pytorch.files"),
        ("predict.py", "from bert_pytorch.quickstart import main", "predict (level 6) imports bert_pytorch.quickstart"),
        ("attic/boxes.py", "", "the room 'attic' has no level; add it to LEVELS"),
        ("models/near.py", "from .bert import Bert", "near.py:1: a relative import"),
        ("shards/direct.py", "import torch", "bert_pytorch.shards.direct → torch"),
        ("shards/part.py", "from torch.nn import functional", "bert_pytorch.shards.part → torch.nn.functional"),
        (
            "shards/hidden.py",
            "import importlib\nimportlib.import_module('torch')",
            "bert_pytorch.shards.hidden → torch",
        ),
        ("corpus/way.py", "from bert_pytorch.optim.lamb import Lamb", "corpus.way → bert_pytorch.optim.lamb → torch"),
        (
            "data/masking.py",
            "from bert_pytorch.data.loader import x",
            "data.masking → bert_pytorch.data.loader → torch",
        ),
        ("training/a.py", "import torch.distributed as dist", "a.py:1: uses torch.distributed"),
        ("training/b.py", "from torch import distributed", "b.py:1: uses torch.distributed"),
        ("training/c.py", "import torch\nx = torch.cuda.is_available()", "c.py:2: uses torch.cuda"),
        (
            "training/d.py",
            "from torch import nn\nx = nn.parallel.DistributedDataParallel",
            "d.py:2: uses torch.nn.parallel",
        ),
        ("training/e.py", "from habana_frameworks.torch import core", "e.py:1: uses habana_frameworks"),
        ("training/f.py", "import torch as t\nt.distributed.barrier()", "f.py:2: uses torch.distributed"),
        (
            "interop/__init__.py",
            '"""Weights."""\nfrom bert_pytorch.models import bert',
            "__init__.py:2: an __init__.py holds",
        ),
        ("interop/__init__.py", "", "has no docstring"),
    ],
)
def test_the_checker_catches_a_planted_violation(tmp_path, path, source, message):
    house = plant_house(tmp_path)
    assert violations(read_package(house)) == []
    (house / path).parent.mkdir(exist_ok=True)
    (house / path).write_text(source)
    problems = violations(read_package(house))
    assert len(problems) == 1, problems
    assert message in problems[0]


def test_what_the_rules_allow_is_not_reported(tmp_path):
    house = plant_house(tmp_path)
    (house / "runtime" / "distributed.py").write_text("import torch.distributed as dist\ndist.barrier()")
    (house / "models" / "bert.py").write_text("import torch\nfrom bert_pytorch.models import parts\ntorch.nn.Linear")
    (house / "__init__.py").write_text('"""The package."""\n\n__version__ = "1"\n__all__ = ["x"]\n')
    (house / "corpus" / "main.py").write_text("import torchless\nfrom bert_pytorch.shards import writer")
    assert violations(read_package(house)) == []


def plant_house(folder: Path) -> Path:
    """Write a small package that keeps every rule."""
    house = folder / PACKAGE
    rooms = ("models", "training", "optim", "shards", "config", "corpus", "runtime", "interop", "data")
    for room in rooms:
        (house / room).mkdir(parents=True)
        (house / room / "__init__.py").write_text(f'"""The room {room}."""\n')
    (house / "__init__.py").write_text('"""The package."""\n')
    (house / "errors.py").write_text("")
    (house / "files.py").write_text("from bert_pytorch.errors import InputError\n")
    (house / "quickstart.py").write_text(
        "from bert_pytorch.corpus import main\nfrom bert_pytorch.training import step\n"
    )
    (house / "training" / "step.py").write_text("from bert_pytorch.optim.lamb import Lamb\n")
    (house / "optim" / "lamb.py").write_text("import torch\nfrom bert_pytorch.errors import ConfigError\n")
    (house / "data" / "loader.py").write_text("import torch\n")
    return house
