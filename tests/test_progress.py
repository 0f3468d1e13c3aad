"""Progress in words."""

from __future__ import annotations

import pytest

from napari_focus_fusion.progress import duration_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (59.94, "60 s"),
        (185.4, "3 min"),
        (3600, "60 min"),
        (7799, "2.2 h"),
    ],
)
def test_durations_have_about_two_digits(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
