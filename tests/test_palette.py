from __future__ import annotations

import pytest
from napari.utils.colormaps import ensure_colormap

from napari_focus_fusion.palette import channel_colours, hex_colours


@pytest.mark.parametrize("count", range(1, 9))
def test_files_and_layers_have_the_same_colours(count: int) -> None:
    names, digits = channel_colours(count), hex_colours(count)
    assert len(names) == count
    for name, colour in zip(names, digits, strict=True):
        brightest = ensure_colormap(name).map([1.0])[0, :3]
        assert colour == "".join(f"{round(255 * share):02X}" for share in brightest)
