"""The command models."""

from __future__ import annotations

from typing import Any

from command_line import report_of

import napari_focus_fusion as ff
from napari_focus_fusion.cli import main


def test_models_as_text_and_as_json(capsys: Any) -> None:
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    assert main(["models", "--json"]) == 0
    specs = report_of(capsys)
    assert set(specs) == set(ff.models())
    for name, spec in specs.items():
        assert name in text
        assert spec["title"] in text
