"""Files that only GitHub and other tools read: they parse, and name what exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from napari_focus_fusion import __version__

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]


def read(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def values(tree: Any, key: str) -> list[Any]:
    """All that stands under a key, however deep."""
    if isinstance(tree, list):
        return [value for branch in tree for value in values(branch, key)]
    if not isinstance(tree, dict):
        return []
    own = [tree[key]] if key in tree else []
    return own + [value for branch in tree.values() for value in values(branch, key)]


def test_the_workflows_are_there() -> None:
    assert {path.stem for path in WORKFLOWS} == {"build", "docs", "lint", "tests"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow(path: Path) -> None:
    workflow = read(path)
    assert "pull_request" in workflow[True]  # YAML takes "on" for a truth value
    assert workflow["permissions"] == {"contents": "read"}
    targets = re.findall(
        r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 60
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step), step
            for target in re.findall(r"\bmake ([\w-]+)", step.get("run", "")):
                assert target in targets
            if "uses" in step:
                assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step["uses"])


def test_tests_run_on_three_systems_with_the_oldest_and_the_newest() -> None:
    workflow = read(ROOT / ".github" / "workflows" / "tests.yml")
    systems = {*values(workflow, "runs-on"), *values(workflow, "system")[0]}
    assert {"ubuntu-latest", "windows-latest", "macos-latest"} <= systems
    oldest, newest = re.findall(r"3\.\d+", " ".join(PROJECT["classifiers"]))[::2][:2]
    assert PROJECT["requires-python"] == f">={oldest}"
    for pythons in values(workflow, "python"):
        assert pythons == [oldest, newest]
    runs = "\n".join(values(workflow, "run"))
    assert "make test-lowest" in runs
    for group in re.findall(r"--group (\w+)", runs):
        assert group == "test"


@pytest.mark.parametrize(
    "path",
    [path for path in FORMS if path.stem != "config"],
    ids=lambda path: path.stem,
)
def test_issue_form(path: Path) -> None:
    form = read(path)
    assert form["name"]
    assert form["description"]
    ids = [field["id"] for field in form["body"] if field["type"] != "markdown"]
    assert len(ids) == len(set(ids))
    assert "stack" in ids
    for field in form["body"]:
        assert field["type"] in {
            "checkboxes",
            "dropdown",
            "input",
            "markdown",
            "textarea",
        }
        assert field["attributes"]["label"]


def test_the_citation_is_of_this_version() -> None:
    citation = read(ROOT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == __version__
    assert citation["title"] == PROJECT["name"]
    assert citation["license"] == PROJECT["license"]
    assert citation["repository-code"] == PROJECT["urls"]["Source"]
    assert citation["message"]
    assert [author["name"] for author in citation["authors"]] == [
        author["name"] for author in PROJECT["authors"]
    ]


def test_hooks_before_a_commit() -> None:
    config = read(ROOT / ".pre-commit-config.yaml")
    hooks = [hook for each in config["repos"] for hook in each["hooks"]]
    names = {hook["id"] for hook in hooks}
    assert {"ruff-check", "ruff-format", "end-of-file-fixer", "check-yaml"} <= names
    for repository in config["repos"]:
        if repository["repo"] != "local":
            assert re.fullmatch(r"v\d+\.\d+\.\d+", repository["rev"])
