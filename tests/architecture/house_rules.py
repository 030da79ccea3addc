"""The house: which room stands on which level, and what each may touch (docs/architecture.md)."""

import ast
from collections.abc import Iterator

from tests.support.import_graph import PACKAGE, Module, is_within, reaches

LEVELS: dict[int, tuple[str, ...]] = {
    6: ("launch", "predict", "quickstart", "convert", "inspect", "__main__"),
    5: ("pretraining", "finetuning", "inference", "corpus", "report", "diagnosis"),
    4: ("tasks", "training", "interop", "downloads"),
    3: ("data", "models", "optim", "tracking"),
    2: ("tokenization", "shards", "checkpoints", "kernels", "runtime", "remote", "columnar", "workers", "pictures"),
    1: ("config", "files", "progress", "vocabulary", "documents"),
    0: ("errors", "records"),
}
"""Imports go downward only; rooms on one level do not import each other.  A tool of one module is a room."""

LEVEL_OF = {room: level for level, rooms in LEVELS.items() for room in rooms}

WITHOUT_TORCH = (
    *("corpus", "tokenization", "shards", "config", "records", "errors", "files", "progress", "vocabulary", "launch"),
    *("remote", "downloads", "inspect", "columnar", "workers", "pictures"),
    *("data.masking", "data.packing", "data.sampling", "data.remote", "data.texts"),
    *("runtime.interfaces", "runtime.processors", "runtime.cgroups", "diagnosis.report"),
    *("tasks.ner.conll", "tasks.ner.schemes", "tasks.ner.labels", "tasks.ner.windows", "tasks.ner.metrics"),
    *("tasks.squad.files", "tasks.squad.windows", "tasks.squad.spans", "tasks.squad.answers", "tasks.squad.metrics"),
)
"""Corpora are built on login nodes, where torch may be absent and is slow to load."""

MACHINE_LIBRARIES = (
    *("torch.distributed", "torch.nn.parallel", "torch.cuda", "torch.backends.cuda", "torch.backends.cudnn"),
    *("habana_frameworks", "torch.multiprocessing"),
)
MACHINE_ROOM = "runtime"


def violations(modules: dict[str, Module]) -> list[str]:
    """Return one line for each thing in the package that breaks the rules of the house."""
    rules = (layer_violations, torch_violations, machine_violations, init_violations, relative_violations)
    return [problem for rule in rules for module in modules.values() for problem in rule(module, modules)]


def layer_violations(module: Module, modules: dict[str, Module]) -> Iterator[str]:
    """Imports that do not go downward, and rooms that have no level."""
    if module.name == PACKAGE:
        return
    if module.room not in LEVEL_OF:
        yield (
            f"{module.path}: the room {module.room!r} has no level; add it to LEVELS in "
            "tests/architecture/house_rules.py and to the table in docs/architecture.md."
        )
        return
    for target, line in dict.fromkeys(module.imports):
        if target not in modules or target == PACKAGE:
            continue
        room = modules[target].room
        if room == module.room or room not in LEVEL_OF:
            continue
        if LEVEL_OF[room] >= LEVEL_OF[module.room]:
            yield (
                f"{module.path}:{line}: {module.room} (level {LEVEL_OF[module.room]}) imports {target} "
                f"(level {LEVEL_OF[room]}); imports go downward only."
            )


def torch_violations(module: Module, modules: dict[str, Module]) -> Iterator[str]:
    """Ways by which torch comes into rooms that work without it."""
    if is_without_torch(module) and (chain := reaches(module.name, "torch", modules)):
        yield f"{module.path}: imports torch, by way of {' → '.join(chain)}; this part of the house works without it."


def is_without_torch(module: Module) -> bool:
    """Whether a module belongs to the part of the house where torch may be absent."""
    return any(is_within(module.name, f"{PACKAGE}.{room}") for room in WITHOUT_TORCH)


def machine_violations(module: Module, modules: dict[str, Module]) -> Iterator[str]:
    """Uses of libraries that know about devices and other processes, outside the room for them."""
    if module.room == MACHINE_ROOM:
        return
    used = {}
    for target, line in (*module.imports, *module.attributes):
        for library in MACHINE_LIBRARIES:
            if is_within(target, library):
                used.setdefault((library, line), None)
    for library, line in used:
        yield f"{module.path}:{line}: uses {library}, which only the room {MACHINE_ROOM!r} touches."


def init_violations(module: Module, modules: dict[str, Module]) -> Iterator[str]:
    """Statements of an `__init__.py` beyond its docstring, `__all__` and `__version__`."""
    if module.path.name != "__init__.py":
        return
    body = ast.parse(module.path.read_text(encoding="utf-8")).body
    if not body or ast.get_docstring(ast.Module(body, [])) is None:
        yield f"{module.path}: has no docstring saying what the room is for."
    for statement in body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue
        names = [ast.unparse(target) for target in statement.targets] if isinstance(statement, ast.Assign) else []
        if not names or not set(names) <= {"__all__", "__version__"}:
            yield f"{module.path}:{statement.lineno}: an __init__.py holds a docstring, __all__ and __version__ only."


def relative_violations(module: Module, modules: dict[str, Module]) -> Iterator[str]:
    """Relative imports."""
    for line in module.relative:
        yield f"{module.path}:{line}: a relative import; write the whole name, from {PACKAGE}."
