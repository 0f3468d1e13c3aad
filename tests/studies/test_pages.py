"""The tables of the documentation."""

from __future__ import annotations

import pytest

from napari_focus_fusion.benchmark import data
from napari_focus_fusion.benchmark.data import DATA_SETS
from napari_focus_fusion.simulation.scenes import Scene, make_scene
from studies.pages import PAGES, Page, make_page


def test_pages_name_data_sets_that_are_there():
    for page in PAGES.values():
        assert set(page.data) <= set(DATA_SETS)


@pytest.fixture
def small(monkeypatch):
    """A page of one small stack."""
    scene: Scene = make_scene(1_000_003, shape=(48, 56), slices=3)
    cases = lambda: iter([data.case_of_scene("small", scene)])  # noqa: E731
    small = data.DataSet("small", "One stack.", ("PSNR",), cases)
    monkeypatch.setitem(data.DATA_SETS, "small", small)
    monkeypatch.setitem(PAGES, "small", Page("one stack", ("sml",), ("small",)))


def test_a_page_is_written_with_its_sheets_and_how_to_make_it_again(small, tmp_path):
    written = make_page("small", tmp_path / "pages")
    assert [path.name for path in written] == ["small.md", "small-small.png"]
    text = written[0].read_text(encoding="utf-8")
    assert text.startswith("# Benchmark: one stack\n")
    assert "napari-focus-fusion benchmark --models sml --data small" in text
    assert "![small](small-small.png)" in text
