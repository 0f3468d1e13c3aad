"""The source of a network as one file that needs nothing but PyTorch."""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from napari_focus_fusion.errors import FocusFusionError

OURS = "napari_focus_fusion"


@dataclass(frozen=True)
class Module:
    """The top level of a module.

    Attributes
    ----------
    text
        Its source.
    docstring
        Of the module.
    definitions
        Functions, classes and constants by name.
    ours
        Names that are imported from modules whose source is copied: module and name.
    imports
        Names that are imported from elsewhere, and the statement that does it.
    """

    text: str
    docstring: str
    definitions: dict[str, ast.stmt] = field(default_factory=dict)
    ours: dict[str, tuple[str, str]] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)


def network_source(target: str, wrapper: str, factory: str) -> str:
    """A module with a network, all that it uses, and a function that makes it.

    Parameters
    ----------
    target
        ``"package.module:Class"`` of the network. What it uses of its own package and
        of this one is copied.
    wrapper
        The same of a class that takes the network.
    factory
        The name of the function; it takes nothing and returns ``wrapper(network())``.

    Returns
    -------
    str
        Source of a Python module.

    Raises
    ------
    FocusFusionError
        If two definitions have one name, or a module has no source.
    """
    roots = (OURS, target.split(".")[0].split(":")[0])
    copied: dict[str, tuple[str, str]] = {}  # name: its module, its source
    imports: set[str] = set()

    def copy(module_name: str, name: str) -> None:
        if name in copied:
            if copied[name][0] != module_name:
                raise FocusFusionError(
                    f"{module_name} and {copied[name][0]} both define {name!r}, so "
                    "that they cannot go into one file. Give one another name."
                )
            return
        module = read_module(module_name, roots)
        node = module.definitions.get(name)
        if node is None:
            if name in module.ours:  # passed on from another module
                copy(*module.ours[name])
            return
        copied[name] = (module_name, "")
        for used in names_in(node):
            if used in module.definitions:
                copy(module_name, used)
            elif used in module.ours:
                copy(*module.ours[used])
            elif used in module.imports:
                imports.add(module.imports[used])
        # After what it uses: classes need their bases when they are defined.
        del copied[name]
        copied[name] = (module_name, source_of(node, module.text))

    network, outer = target.partition(":"), wrapper.partition(":")
    copy(network[0], network[2])
    copy(outer[0], outer[2])
    docstring = read_module(network[0], roots).docstring
    parts = [source for _, source in copied.values()]
    parts.append(
        f"def {factory}() -> nn.Module:\n"
        '    """The network whose weights are in this package."""\n'
        f"    return {outer[2]}({network[2]}())"
    )
    head = [f'"""{docstring}"""', "from __future__ import annotations"]
    return "\n\n".join([*head, "\n".join(sorted(imports)), *parts]) + "\n"


@cache
def read_module(name: str, roots: tuple[str, ...]) -> Module:
    """The top level of a module, without what it imports for type checkers alone."""
    found = importlib.util.find_spec(name)
    if found is None or not found.origin or not found.origin.endswith(".py"):
        raise FocusFusionError(
            f"The module {name} has no source file, so the network that it holds "
            "cannot be exported."
        )
    text = Path(found.origin).read_text(encoding="utf-8")
    tree = ast.parse(text)
    module = Module(text, ast.get_docstring(tree, clean=False) or "")
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            module.definitions[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                for part in ast.walk(target):
                    if isinstance(part, ast.Name):
                        module.definitions[part.id] = node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            _add_imports(module, node, roots)
    return module


def _add_imports(
    module: Module, node: ast.Import | ast.ImportFrom, roots: tuple[str, ...]
) -> None:
    origin = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
    for alias in node.names:
        name = alias.asname or alias.name.split(".")[0]
        if isinstance(node, ast.Import):
            module.imports[name] = ast.unparse(ast.Import([alias]))
        elif origin.split(".")[0] in roots:
            module.ours[name] = (origin, alias.name)
        elif origin != "__future__":
            module.imports[name] = ast.unparse(ast.ImportFrom(origin, [alias], 0))


def names_in(node: ast.stmt) -> list[str]:
    """Names that a definition uses, each once."""
    found = (part.id for part in ast.walk(node) if isinstance(part, ast.Name))
    return list(dict.fromkeys(found))


def source_of(node: ast.stmt, text: str) -> str:
    """A definition as it is written, with its decorators and the comment above it."""
    lines = text.splitlines()
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(each.lineno for each in decorators)]) - 1
    while first and lines[first - 1].startswith("#"):
        first -= 1
    return "\n".join(lines[first : node.end_lineno])
