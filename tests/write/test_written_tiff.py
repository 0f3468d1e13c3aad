from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_focus_fusion.opening import as_stack
from napari_focus_fusion.stack import FocusStack
from napari_focus_fusion.write import tiff as tiff_write
from small_results import pixels_of, result_for


@pytest.mark.parametrize("axes", ["ZYX", "TZYXS", "TCZYX"])
def test_large_planes_are_written_in_tiles(axes: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tiff_write, "_WHOLE_PLANE_BYTES", 1000)
    result = result_for(axes, sizes={"Y": 530, "X": 1025})
    path = result.save(tmp_path / "r.ome.tif")[0]
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages[0].tile == (512, 512)
    want = FocusStack(result.fused, result.stack.fused_axes)
    np.testing.assert_array_equal(pixels_of(as_stack(path)), pixels_of(want))
