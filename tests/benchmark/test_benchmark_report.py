"""What is written down of a benchmark."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest

from napari_focus_fusion.benchmark.data import Case
from napari_focus_fusion.benchmark.measuring import finished
from napari_focus_fusion.benchmark.published import PUBLISHED
from napari_focus_fusion.benchmark.report import (
    COST,
    summaries,
    to_csv,
    to_json,
    to_markdown,
    write_report,
)
from napari_focus_fusion.benchmark.table import Run, Score, Table
from napari_focus_fusion.metrics import WITHOUT_TRUTH
from napari_focus_fusion.opening import as_stack


def stack(name, *groups):
    return {
        "name": name,
        "groups": groups,
        "slices": 2,
        "megapixel_slices": 0.5,
        "sha256": name * 4,
    }


@pytest.fixture
def table():
    """Two stacks; a model that did both, and one that failed on the second."""
    table = Table({"seed": 0})
    table.data_sets.append(
        {
            "name": "lytro",
            "about": "Pairs.",
            "measures": ("Q_MI", "Q_G"),
            "stacks": [stack("one", "dim"), stack("two", "dim", "2 slices")],
        }
    )
    cost = {"seconds": 2.0, "cpu_seconds": 1.0}
    table.runs = [
        Run("lytro", "good", "model", device="cpu", peak_mb=300.0),
        Run("lytro", "bad", "model", device="cpu", peak_mb=200.0),
        Run("lytro", "copy", "baseline"),
    ]
    table.scores = [
        Score("lytro", "one", "good", {"Q_MI": 1.1, "Q_G": 0.7}, dict(cost)),
        Score("lytro", "two", "good", {"Q_MI": 1.3, "Q_G": 0.5}, dict(cost)),
        Score("lytro", "one", "bad", {"Q_MI": 1.9, "Q_G": 0.9}, dict(cost)),
        Score("lytro", "two", "bad", error="a | b"),
        Score("lytro", "one", "copy", {"Q_MI": 1.5, "Q_G": 0.1}),
        Score("lytro", "two", "copy", {"Q_MI": 1.5, "Q_G": 0.1}),
    ]
    return table


def test_means_are_over_all_stacks_or_there_are_none(table):
    rows = {
        (row["scope"], row["candidate"]): row
        for row in summaries(table)
        if row["origin"] == "measured"
    }
    good = rows["all", "good"]
    assert (good["Q_MI"], good["Q_G"]) == (pytest.approx(1.2), pytest.approx(0.6))
    assert [good[name] for name in COST] == [2.0, 1.0, 0.25, 300.0]
    bad = rows["all", "bad"]
    assert bad["note"] == "failed on 1 of 2 stacks: two: a | b"
    assert not {"Q_MI", "Q_G", *COST} & set(bad)
    assert rows["stack: one", "bad"]["Q_G"] == 0.9
    assert rows["group: 2 slices", "good"]["Q_MI"] == 1.3
    assert "seconds per stack" not in rows["all", "copy"]


def test_published_figures_are_never_among_measured_ones(table):
    rows = summaries(table)
    published = [row for row in rows if row["origin"] == "published"]
    assert len(published) == sum(r.data == "lytro" for r in PUBLISHED)
    for row in published:
        assert row["note"]
        assert not {*COST, "device", "version", "stacks"} & set(row)

    text = to_markdown(table, rows, {}, "")
    measured, _, rest = text.partition("**Not measured here**")
    for reference in PUBLISHED:
        assert reference.method not in measured
    assert "SESF-Fuse, authors' weights | 1.1556 | 0.7213" in rest
    assert "| good |" in measured and "| good |" not in rest

    found = list(csv.DictReader(io.StringIO(to_csv(rows))))
    by_origin = {
        origin: {row["candidate"] for row in found if row["origin"] == origin}
        for origin in ("measured", "published")
    }
    assert by_origin["measured"] == {"good", "bad", "copy"}
    assert not by_origin["measured"] & by_origin["published"]

    whole = json.loads(to_json(table, rows, ""))
    assert {score["candidate"] for score in whole["scores"]} == by_origin["measured"]
    assert {row["candidate"] for row in whole["published"]} == by_origin["published"]


def test_published_figures_belong_to_their_data_set_and_say_where_from(table):
    for reference in PUBLISHED:
        assert reference.origin
        assert set(reference.values) <= set(WITHOUT_TRUTH)
    table.data_sets[0]["name"] = "mine"
    for item in (*table.runs, *table.scores):
        item.data = "mine"
    assert {row["origin"] for row in summaries(table)} == {"measured"}


def test_the_markdown_can_be_read(table):
    table.missing = {"Other program": "pip install other"}
    text = to_markdown(table, summaries(table), {}, "type this")
    assert "```console\ntype this\n```" in text
    assert "- Other program: pip install other" in text
    assert "2 stacks of 2 slices" in text
    lines = text.splitlines()
    head = lines.index(next(line for line in lines if line.startswith("| candidate")))
    widths = {line.count(" | ") for line in lines[head : head + 5]}
    assert len(widths) == 1  # a bar in an error breaks no table
    assert "| good | 1.2000 | 0.6000 | 2 | 1 | 0.25 | 300 | cpu | – |" in text
    assert "- bad: failed on 1 of 2 stacks: two: a | b" in text


def test_what_training_adds_stands_apart(table):
    table.data_sets[0]["measures"] = ("PSNR",)
    table.runs = [
        Run("lytro", "net", "model"),
        Run("lytro", "net, untrained", "untrained"),
        Run("lytro", "other, untrained", "untrained"),  # without its trained twin
    ]
    table.scores = [
        Score("lytro", name, run.candidate, {"PSNR": psnr, "depth error": depth})
        for run, found in zip(
            table.runs,
            ((30, 0.5, 32, 0.3), (29, 0.6, 33, 0.8), (1, 1, 1, 1)),
            strict=True,
        )
        for name, psnr, depth in (("one", *found[:2]), ("two", *found[2:]))
    ]
    text = to_markdown(table, summaries(table), {}, "")
    _, _, gains = text.partition("What training adds")
    assert gains.partition("\n\n")[2].splitlines()[:5] == [
        "|  | net |",
        "| --- | --- |",
        "| all | +0.00 / -0.300 |",
        "| 2 slices | -1.00 / -0.500 |",
        "| dim | +0.00 / -0.300 |",
    ]


def test_all_files_are_written(table, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    table.sheets = {"lytro": {"a/b c": pixels}}
    written = write_report(table, tmp_path / "new", "")
    assert [path.name for path in written] == [
        "benchmark.md",
        "benchmark.csv",
        "benchmark.json",
        "lytro-a_b_c.png",
    ]
    from PIL import Image

    np.testing.assert_array_equal(np.asarray(Image.open(written[3])), pixels)
    assert "(lytro-a_b_c.png)" in written[0].read_text(encoding="utf-8")


def test_a_model_that_enlarges_is_not_enlarged_again():
    small = np.full((2, 8, 10, 3), 0.5, np.float32)
    case = Case("pair", as_stack(small, axes="ZYXS"), "", enlarge=2)
    by_cubic = finished(case, [small[0]])[0]
    assert by_cubic.shape == (16, 20, 3) and by_cubic.dtype == np.uint8
    assert (by_cubic == 128).all()
    own = np.random.default_rng(0).uniform(-0.1, 1.1, (16, 20, 3)).astype(np.float32)
    (kept,) = finished(case, [own])
    np.testing.assert_array_equal(kept, np.rint(own.clip(0, 1) * 255))
