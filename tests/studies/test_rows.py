"""Rows that are there already are not made again."""

from __future__ import annotations

import json

import pytest

from studies.rows import markdown_table, run_missing, write_table


def test_rows_are_made_once_and_kept_though_a_later_one_fails(tmp_path):
    path = tmp_path / "absent" / "rows.json"
    made = []

    def run(name, steps):
        made.append((name, steps))
        if name == "bad":
            raise ValueError("bad")
        return {"model": name, "steps": steps, "scores": {"psnr": 1.5}}

    def runs(*wanted):
        for name, steps in wanted:
            yield (
                {"model": name, "steps": steps},
                lambda name=name, steps=steps: run(name, steps),
            )

    with pytest.raises(ValueError, match="bad"):
        run_missing(path, runs(("a", 3), ("bad", 3), ("c", 3)))
    assert [row["model"] for row in json.loads(path.read_text())] == ["a"]
    rows = run_missing(path, runs(("c", 3), ("a", 3), ("a", 4)))
    assert made == [("a", 3), ("bad", 3), ("c", 3), ("a", 4)]
    assert [(row["model"], row["steps"]) for row in rows] == [
        ("a", 3),
        ("c", 3),
        ("a", 4),
    ]
    assert json.loads(path.read_text()) == rows


def test_a_table_lies_beside_its_rows(tmp_path, capsys):
    table = markdown_table(("model", "PSNR, dB"), [("sml", "31.20"), ("sesf", "33.00")])
    assert table.splitlines() == [
        "| model | PSNR, dB |",
        "| --- | --- |",
        "| sml | 31.20 |",
        "| sesf | 33.00 |",
    ]
    write_table(tmp_path / "rows.json", table)
    assert (tmp_path / "rows.md").read_text(encoding="utf-8") == table
    assert capsys.readouterr().out == table + "\n"
