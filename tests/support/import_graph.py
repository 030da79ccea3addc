"""Who imports whom in a package tree, read from the source without running it."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = "bert_pytorch"


class Reference(NamedTuple):
    """One name of another module that a module imports or reaches through an attribute."""

    target: str
    """Dotted, as far as the source tells: `torch.nn.parallel.DistributedDataParallel`."""
    line: int


class Module(NamedTuple):
    """One source file of the package."""

    name: str
    """Dotted; a package's is that of its folder."""
    path: Path
    imports: tuple[Reference, ...]
    attributes: tuple[Reference, ...]
    """Dotted names used in expressions, aliases resolved: `F.relu` is `torch.nn.functional.relu`."""
    relative: tuple[int, ...]
    """Lines of relative imports."""

    @property
    def room(self) -> str:
        """The first name below the package, empty for the package's own `__init__`."""
        return self.name.partition(".")[2].partition(".")[0]


def read_package(folder: Path) -> dict[str, Module]:
    """Read all modules of the package in `folder`, by dotted name."""
    paths = {dotted(path, folder): path for path in sorted(folder.rglob("*.py"))}
    return {name: read_module(name, path, set(paths)) for name, path in paths.items()}


def dotted(path: Path, folder: Path) -> str:
    """Return the name that a source file is imported by."""
    parts = [folder.name, *path.relative_to(folder).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def read_module(name: str, path: Path, modules: set[str]) -> Module:
    """Read one source file."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    imports: list[Reference] = []
    aliases: dict[str, str] = {}
    relative = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [Reference(alias.name, node.lineno) for alias in node.names]
            aliases |= {
                alias.asname or root(alias.name): alias.name if alias.asname else root(alias.name)
                for alias in node.names
            }
        elif isinstance(node, ast.ImportFrom) and node.level:
            relative.append(node.lineno)
        elif isinstance(node, ast.ImportFrom):
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            imports += [Reference(target, node.lineno) for target in full]
            aliases |= {alias.asname or alias.name: target for alias, target in zip(node.names, full, strict=True)}
        elif isinstance(node, ast.Call):
            imports += dynamic_imports(node)
    attributes = tuple(attributes_of(tree, aliases))
    imports = [Reference(nearest_module(target, modules), line) for target, line in imports]
    return Module(name, path, tuple(imports), attributes, tuple(relative))


def root(name: str) -> str:
    """Return the first part of a dotted name."""
    return name.partition(".")[0]


def nearest_module(target: str, modules: set[str]) -> str:
    """Cut a name inside one of our modules down to the module; foreign names stay whole."""
    if root(target) != PACKAGE:
        return target
    while target not in modules and "." in target:
        target = target.rpartition(".")[0]
    return target


def dynamic_imports(call: ast.Call) -> Iterator[Reference]:
    """Yield what `importlib.import_module("x")` and `__import__("x")` import."""
    called = ast.unparse(call.func)
    if called.rpartition(".")[2] in ("import_module", "__import__") and call.args:
        if isinstance(call.args[0], ast.Constant) and isinstance(call.args[0].value, str):
            yield Reference(call.args[0].value, call.lineno)


def attributes_of(tree: ast.AST, aliases: dict[str, str]) -> Iterator[Reference]:
    """Yield dotted names in expressions whose first part was imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            spelled = ast.unparse(node)
            if (first := root(spelled)) in aliases:
                yield Reference(aliases[first] + spelled.removeprefix(first), node.lineno)


def reaches(start: str, library: str, modules: dict[str, Module]) -> list[str]:
    """Return a chain of imports from module `start` to `library`, empty if there is none.

    A module's packages count as imported by it, as Python runs their `__init__` first.
    """
    chains = [[start]]
    seen = {start}
    while chains:
        chain = chains.pop(0)
        module = modules[chain[-1]]
        parents = [module.name.rsplit(".", depth)[0] for depth in range(1, module.name.count(".") + 1)]
        for target in [*(reference.target for reference in module.imports), *parents]:
            if is_within(target, library):
                return [*chain, target]
            if target in modules and target not in seen:
                seen.add(target)
                chains.append([*chain, target])
    return []


def is_within(target: str, prefix: str) -> bool:
    """Whether a dotted name is `prefix` or inside it."""
    return target == prefix or target.startswith(prefix + ".")
