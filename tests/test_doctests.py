"""Every public function has an example that does what it says, and is in the API."""

from __future__ import annotations

import doctest
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import napari_focus_fusion as ff
from napari_focus_fusion import metrics, report, retouch
from napari_focus_fusion.models import base, registry
from napari_focus_fusion.training import finetune, train

if TYPE_CHECKING:
    from types import ModuleType

API = Path(__file__).parents[1] / "docs" / "api.md"
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def names_of(module: ModuleType) -> list[str]:
    """Public functions that are written in a module."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and inspect.isfunction(value)
        and value.__module__ == module.__name__
    ]


#: Where each public function and class is found.
PUBLIC: dict[str, Any] = {
    **{f"napari_focus_fusion.{name}": getattr(ff, name) for name in ff.__all__},
    **{f"metrics.{name}": getattr(metrics, name) for name in metrics.__all__},
    **{f"registry.{name}": getattr(registry, name) for name in registry.__all__},
    **{f"registry.{name}": getattr(registry, name) for name in names_of(registry)},
    **{f"retouch.{name}": getattr(retouch, name) for name in names_of(retouch)},
    "report.report": report.report,
    "report.load_result": report.load_result,
    "train.train": train.train,
}
EXAMPLES = {
    name: value
    for name, value in PUBLIC.items()
    if inspect.isfunction(value) or inspect.isclass(value)
}


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.filterwarnings("ignore:The tuned model is NOT better")
def test_example(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that an example writes go to an empty folder."""
    monkeypatch.chdir(tmp_path)
    # what is fine-tuned is judged by less, which takes a tenth of the time
    monkeypatch.setattr(finetune, "RESYNTHESISED", 2)
    monkeypatch.setattr(finetune, "FUSED", 1)
    value = EXAMPLES[name]
    found = doctest.DocTestFinder(recurse=False).find(
        value, name, globs={"ff": ff, value.__name__: value}
    )
    examples = [each for each in found if each.examples]
    assert examples, f"{name} has no example"
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    for each in examples:
        assert not any(doctest.SKIP in example.options for example in each.examples), (
            f"{name} skips a line"
        )
        report: list[str] = []
        runner.run(each, out=report.append)
        assert not report, "".join(report)


def test_all_kinds_of_models_are_in_the_api() -> None:
    kinds = {
        name
        for name, value in vars(base).items()
        if inspect.isclass(value) and issubclass(value, base.FusionModel)
    }
    assert len(kinds) == 6
    assert kinds <= in_the_api()


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_is_in_the_api(name: str) -> None:
    assert EXAMPLES[name].__name__ in in_the_api()


def in_the_api() -> set[str]:
    page = API.read_text(encoding="utf-8")
    return set(re.findall(r"^.. auto\w+:: (?:\w+\.)*(\w+)$", page, re.MULTILINE))
