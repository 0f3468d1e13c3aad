"""The page on the architecture, and its diagram, agree with the code."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "napari_focus_fusion"

found = importlib.util.spec_from_file_location(
    "architecture", ROOT / "docs" / "architecture.py"
)
assert found is not None
assert found.loader is not None
architecture = importlib.util.module_from_spec(found)
found.loader.exec_module(architecture)


def test_the_diagram_is_drawn_from_the_contract() -> None:
    """If not: python docs/architecture.py."""
    kept = architecture.DIAGRAM.read_text(encoding="utf-8")
    assert kept == architecture.diagram()
    texts = [each.text for each in ElementTree.fromstring(kept).iter() if each.text]
    assert set(architecture.layers()) <= set(texts)


def test_every_module_has_its_layer() -> None:
    named = {name for row in architecture.layers() for name in row.split(", ")}
    there = {
        path.stem
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert named == there - {"__init__", "__main__"}


@pytest.mark.parametrize(
    ("name", "file", "words"), [*architecture.ENGINE, architecture.MONITOR]
)
def test_the_engine_has_what_is_drawn(name: str, file: str, words: str) -> None:
    tree = ast.parse((PACKAGE / "engine" / file).read_text(encoding="utf-8"))
    defined = {each.name: each for each in tree.body if hasattr(each, "name")}
    if name[0].isupper():
        members = ast.unparse(defined[name])
        for member in re.findall(r"[a-z_]+(?=[,:])", words):
            assert name not in ("Step", "Monitor") or member in members


def test_every_path_on_the_page_exists() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    paths = re.findall(r"`((?:[a-z_]+/)*[a-z_]+(?:\.py|/))`", page)
    assert len(paths) > 15
    for path in paths:
        assert (PACKAGE / path).exists() or (ROOT / path).exists(), path
