from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import yaozarrs
import zarr
from napari import layers as napari_layers

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.opening import as_stack
from napari_focus_fusion.result import FusionResult
from napari_focus_fusion.stack import FocusStack
from napari_focus_fusion.write import tiff as tiff_write
from napari_focus_fusion.write.ome_zarr import (
    create_output,
    finish_output,
    open_output,
)

ALL = slice(None)
SIZES = {"T": 2, "C": 3, "Z": 5, "Y": 30, "X": 35, "S": 3}
PIXEL = {"T": 60.0, "C": 1.0, "Z": 0.5, "Y": 0.1, "X": 0.2}
UNITS = {**dict.fromkeys("ZYX", "micrometer"), "T": "second"}
PROVENANCE = {"model": "sesf", "version": "0", "where": np.float32(0.5)}


def result_for(axes: str, scale: int = 1, **fields) -> FusionResult:
    """A result with values of its own everywhere, for a stack of these axes."""
    rng = np.random.default_rng(3)
    sizes = {**SIZES, **fields.pop("sizes", {})}
    dtype = fields.pop("dtype", "uint8" if "S" in axes else "uint16")
    data = np.zeros([sizes[axis] for axis in axes], dtype)
    stack = as_stack(data, axes=axes, scale=PIXEL, units=UNITS, name="cells", **fields)
    shape = [
        n * scale if axis in "YX" else n
        for axis, n in zip(stack.fused_axes, stack.fused_shape, strict=True)
    ]
    fused = (rng.random(shape) * 250).astype(dtype)
    decision = rng.integers(0, stack.n_slices, stack.map_shape, np.uint16)
    confidence = rng.random(stack.map_shape).astype(np.float32)
    depth = (decision * 0.5).astype(np.float32)
    maps = (decision, confidence, depth)
    consistency = None if scale == 1 else confidence / 10
    return FusionResult(fused, *maps, stack, PROVENANCE, scale, consistency)


def turned(n: int, i: int, j: int, degrees: float) -> np.ndarray:
    matrix = np.eye(n)
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    matrix[[i, i, j, j], [i, j, i, j]] = [c, -s, s, c]
    return matrix


def corners(layer) -> np.ndarray:
    """World coordinates of the outer corners of the corner pixels."""
    shape = layer.data[0].shape if layer.multiscale else layer.data.shape
    ends = [(-0.5, n - 0.5) for n in shape[: layer.ndim]]
    return np.array([layer._data_to_world(p) for p in itertools.product(*ends)])


def transform_of(kind: str, axes: str) -> dict:
    n, y, x = len(axes), axes.index("Y"), axes.index("X")
    shift = {"translate": np.arange(n) * 3.0 + 7}
    affine = np.eye(n + 1)
    affine[:n, :n] = 1.5 * turned(n, y, x, 10)
    affine[:n, n] = np.arange(n) - 2
    return {
        "none": {},
        "moved": shift,
        "turned": {**shift, "rotate": turned(n, y, x, 30)},
        "tilted": {**shift, "rotate": turned(n, axes.index("Z"), y, 20)},
        "sheared": {**shift, "shear": np.linspace(0.1, 0.3, n * (n - 1) // 2)},
        "affine": {**shift, "rotate": turned(n, y, x, 30), "affine": affine},
        "flipped": {**shift, "scale": [PIXEL[a] * (-1) ** (a == "Y") for a in axes]},
    }[kind]


@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize(
    "kind", ["none", "moved", "turned", "tilted", "sheared", "affine", "flipped"]
)
@pytest.mark.parametrize("axes", ["ZYX", "ZYXS", "TZYX", "TCZYX", "ZCYX", "YXZ"])
@pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")
def test_results_lie_exactly_on_their_source(axes: str, kind: str, scale: int) -> None:
    shown = axes.replace("S", "")
    result = result_for(axes, scale, display={})
    state = {"scale": [PIXEL[a] for a in shown], **transform_of(kind, shown)}
    labels = [f"dim {axis}" for axis in shown]
    source = napari_layers.Image(
        np.zeros([SIZES[a] for a in axes], np.uint8),
        rgb="S" in axes,
        units=[UNITS.get(a, "pixel") for a in shown],
        axis_labels=labels,
        **state,
    )
    display = {
        **result.stack.display,
        "scale": source.scale,
        "translate": source.translate,
        "rotate": source.rotate,
        "shear": source.shear,
        "affine": source.affine.affine_matrix,
        "axis_labels": source.axis_labels,
    }
    result = replace(result, stack=replace(result.stack, display=display))

    for data, attributes, layer_type in result.layers():
        assert layer_type == "image"
        layer = napari_layers.Image(data, **attributes)
        lost = source.ndim - layer.ndim  # axes that napari supplies in front
        want, got = corners(source)[:, lost:], corners(layer)
        # The same box: corner for corner, those along a lost axis coincide.
        np.testing.assert_allclose(np.unique(want.round(9), axis=0).shape, got.shape)
        apart = np.abs(want[:, None] - got[None]).max(-1)
        assert apart.min(0).max() < 1e-9
        assert apart.min(1).max() < 1e-9
        assert layer.units == source.units[lost:]
        assert layer.axis_labels == source.axis_labels[lost:]
        assert layer.rgb == ("S" in axes and attributes["name"].startswith("cells f"))
        if lost:
            assert set(shown[:lost]) <= {"Z", "C"}


@pytest.mark.parametrize(
    ("axes", "kept"),
    [
        ("ZYX", "YX"),
        ("CZYX", "YX"),
        ("ZCYX", "YX"),
        ("TZYX", "TZYX"),
        ("ZTYX", "TYX"),
        ("TCZYX", "TCZYX"),
        ("CTZYX", "TZYX"),
        ("YXZ", "YXZ"),
        ("YX", "YX"),
    ],
)
def test_only_leading_axes_are_left_to_napari(axes: str, kept: str) -> None:
    for data, attributes, _ in result_for(axes).layers():
        assert attributes["axis_labels"] == tuple(kept.lower())
        assert data.shape == tuple(1 if a in "ZC" else SIZES[a] for a in kept)


def test_the_fused_plane_shows_at_every_z_and_time() -> None:
    from napari.components import ViewerModel

    result = result_for("TZYX")
    viewer = ViewerModel()
    viewer.add_image(
        np.zeros((2, 5, 30, 35)),
        scale=[60, 0.5, 0.1, 0.2],
        units=["second", *["micrometer"] * 3],
        axis_labels=list("tzyx"),
    )
    fused = viewer.add_layer(napari_layers.Layer.create(*result.layers()[0]))
    assert viewer.dims.nsteps[:2] == (2, 5)
    for t, z in itertools.product(range(2), range(5)):
        viewer.dims.current_step = (t, z, 0, 0)
        np.testing.assert_array_equal(fused._slice.image.raw, result.fused[t])


def test_layers_show_what_they_hold() -> None:
    result = result_for("ZYX")
    fused, decision, confidence, depth = (data for data, _, _ in result.layers())
    assert fused is result.fused
    np.testing.assert_array_equal(decision, result.decision)
    np.testing.assert_array_equal(confidence, result.confidence)
    np.testing.assert_array_equal(depth, result.depth)
    by_output = {
        a["metadata"]["napari_focus_fusion"]["output"]: a for _, a, _ in result.layers()
    }
    assert list(by_output) == ["fused", "decision", "confidence", "depth"]
    assert by_output["fused"]["name"] == "cells fused [sesf]"
    assert by_output["decision"]["contrast_limits"] == (0, 4)
    assert by_output["depth"]["contrast_limits"] == (0, 2)
    assert by_output["depth"]["metadata"]["napari_focus_fusion"]["model"] == "sesf"


def test_channels_become_layers_with_their_names_and_colours() -> None:
    display = {
        "colormap": ["red", "#00ff00", "gray"],
        "contrast_limits": [(0, 10), (5, 20), (1, 2)],
        "gamma": 0.7,
    }
    names = ["DAPI", "GFP", "BF"]
    result = result_for("TCZYX", display=display, channel_names=names)
    layers = result.layers()[:3]
    for channel, (data, attributes, _) in enumerate(layers):
        np.testing.assert_array_equal(data[:, 0, 0], result.fused[:, channel])
        assert attributes["name"] == f"cells {names[channel]} fused [sesf]"
        assert attributes["colormap"] == display["colormap"][channel]
        assert attributes["contrast_limits"] == display["contrast_limits"][channel]
        assert attributes["gamma"] == 0.7
        assert attributes["blending"] == "additive"
    plain = result_for("CZYX").layers()
    assert [a["colormap"] for _, a, _ in plain[:3]] == ["cyan", "magenta", "yellow"]
    assert plain[1][1]["contrast_limits"] == (
        plain[1][0].min(),
        plain[1][0].max(),
    )


def test_layers_import_no_napari() -> None:
    code = """
import sys
import numpy as np
from napari_focus_fusion.result import FusionResult
from napari_focus_fusion.opening import as_stack
plane = np.zeros((20, 20), np.float32)
stack = as_stack(np.zeros((3, 20, 20), np.uint8))
result = FusionResult(plane, plane, plane, plane, stack, {})
assert len(result.layers()) == 4
print(sorted({"napari", "qtpy", "torch"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


CASES = [
    ("ZYX", 1, {}),
    ("ZYX", 2, {}),
    ("ZYXS", 2, {}),
    ("TZYXS", 1, {}),
    ("TCZYX", 1, {"dtype": "float32", "channel_names": ["a", "b", "c"]}),
    ("ZCYX", 3, {}),
    ("CTZYX", 1, {}),
    ("YXZ", 1, {"dtype": "float64"}),
    ("ZYX", 1, {"dtype": "int16", "sizes": {"Y": 1030, "X": 1101}}),
]


def pixels_of(stack: FocusStack) -> np.ndarray:
    """(t, component, y, x) of a result read back as a stack of one slice."""
    assert stack.n_slices == 1
    planes = [stack.read(t, [0], ALL, ALL)[:, 0] for t in range(stack.n_times)]
    return np.stack(planes)


@pytest.mark.parametrize(("axes", "scale", "fields"), CASES)
@pytest.mark.parametrize("kind", ["r.ome.tif", "r.tiff", "r.ome.zarr"])
def test_saved_results_read_back_the_same(axes, scale, fields, kind, tmp_path) -> None:
    result = result_for(axes, scale, **dict(fields))
    stack = result.stack
    paths = result.save(tmp_path / kind)

    assert sorted(os.listdir(tmp_path)) == sorted(path.name for path in paths)
    if kind.endswith("zarr"):
        yaozarrs.validate_zarr_store(paths[0])
        inside = ["", "labels/decision", "confidence", "depth", "consistency"]
        paths = [paths[0] / place for place in inside[: 4 + (scale > 1)]]
    outputs = ("fused", "decision", "confidence", "depth", "consistency")
    outputs = outputs[: 4 + (scale > 1)]
    for output, path in zip(outputs, paths, strict=True):
        read = as_stack(path)
        original = getattr(result, output)
        wanted_axes = stack.fused_axes if output == "fused" else stack.map_axes
        want = FocusStack(original, wanted_axes)
        np.testing.assert_array_equal(pixels_of(read), pixels_of(want))
        assert read.dtype == want.dtype
        assert set(read.axes) == set(wanted_axes)
        factor = scale if output == "fused" else 1
        assert read.pixel_size("Y") == pytest.approx(0.1 / factor)
        assert read.pixel_size("X") == pytest.approx(0.2 / factor)
        assert read.unit("X") == "micrometer"
        if "T" in axes:
            assert (read.pixel_size("T"), read.unit("T")) == (60, "second")
    assert as_stack(paths[0]).channel_names == stack.channel_names


def test_provenance_travels_in_files(tmp_path) -> None:
    result = result_for("ZYX")
    first, *_ = result.save(tmp_path / "r.ome.tif")
    with tifffile.TiffFile(first) as tiff:
        image = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]
    description = json.loads(image["Description"])
    assert description == {
        "output": "fused",
        "model": "sesf",
        "version": 0 if description["version"] == 0 else "0",
        "where": "0.5",
    }
    (path,) = result.save(tmp_path / "r.ome.zarr")
    ours = zarr.open_group(path).attrs["napari_focus_fusion"]
    assert ours["provenance"] == {"model": "sesf", "version": "0", "where": "0.5"}


def test_half_floats_become_floats_in_tiff_and_stay_in_zarr(tmp_path) -> None:
    result = result_for("ZYX", dtype="float16")
    for name, dtype in (("r.tif", "float32"), ("r.zarr", "float16")):
        stack = as_stack(result.save(tmp_path / name)[0])
        assert stack.dtype == dtype
        np.testing.assert_array_equal(pixels_of(stack)[0, 0], result.fused)


@pytest.mark.parametrize("axes", ["ZYX", "TZYXS", "TCZYX"])
def test_large_planes_are_written_in_tiles(axes: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tiff_write, "_WHOLE_PLANE_BYTES", 1000)
    result = result_for(axes, sizes={"Y": 530, "X": 1025})
    path = result.save(tmp_path / "r.ome.tif")[0]
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages[0].tile == (512, 512)
    want = FocusStack(result.fused, result.stack.fused_axes)
    np.testing.assert_array_equal(pixels_of(as_stack(path)), pixels_of(want))


def test_an_ome_zarr_opens_in_napari(tmp_path) -> None:
    from napari_ome_zarr import napari_get_reader

    result = result_for("CZYX", 2, sizes={"Y": 600}, channel_names=["a", "b", "c"])
    (path,) = result.save(tmp_path / "r.ome.zarr")
    (data, attributes, _), (labels, more, kind) = napari_get_reader(str(path))(path)
    assert attributes["name"] == ["cells: a", "cells: b", "cells: c"]
    assert [level.shape for level in data] == [(3, 1200, 70), (3, 600, 35)]
    np.testing.assert_array_equal(data[0], result.fused)
    assert kind == "labels"
    assert more["units"] == ("micrometer", "micrometer")
    np.testing.assert_array_equal(labels[0], result.decision)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "float32"])
def test_pyramids_are_means_and_decisions_are_picked(dtype: str, tmp_path) -> None:
    sizes = {"Y": 2050, "X": 1025}
    result = result_for("ZYX", sizes=sizes, dtype=dtype)
    (path,) = result.save(tmp_path / "r.ome.zarr")
    group = zarr.open_group(path, mode="r")
    attributes = group.attrs["ome"]["multiscales"][0]["datasets"]
    wide = np.pad(result.fused, ((0, 0), (0, 1)), mode="edge").astype(float)
    mean = wide.reshape(1025, 2, 513, 2).mean((1, 3))
    if np.dtype(dtype).kind != "f":
        mean = np.rint(mean)
    np.testing.assert_allclose(group["1"][:], mean, rtol=1e-6)
    assert [group[d["path"]].shape for d in attributes] == [
        (2050, 1025),
        (1025, 513),
        (513, 257),
    ]
    coarse = attributes[2]["coordinateTransformations"]
    np.testing.assert_allclose(coarse[0]["scale"], [0.4, 0.8])
    np.testing.assert_allclose(coarse[1]["translation"], [0.15, 0.3])
    picked = group["labels/decision/1"][:]
    np.testing.assert_array_equal(picked, result.decision[::2, ::2])


@pytest.mark.parametrize("axes", ["ZYX", "TZYX", "ZYXS", "TCZYX", "CTZYX"])
def test_an_output_filled_by_region_is_a_result(axes: str, tmp_path) -> None:
    result = result_for(axes, 2, sizes={"Y": 520, "X": 515}, channel_names=None)
    stack = result.stack
    part, final = tmp_path / "r.partial", tmp_path / "r.ome.zarr"
    create_output(part, stack, scale=2)
    for name, array in open_output(part, stack).items():  # as a resumed run does
        whole = getattr(result, name)
        row = (stack.fused_axes if name == "fused" else stack.map_axes).index("Y")
        for start in range(0, whole.shape[row], 512):
            key = (ALL,) * row + (slice(start, start + 512),)
            if array.shape[0] != whole.shape[row] and row:  # a time point by number
                for i in range(whole.shape[0]):
                    array[(i, *key[1:])] = whole[(i, *key[1:])]
            else:
                array[key] = whole[key]
    assert not final.exists()
    assert finish_output(part, final, PROVENANCE) == final
    assert not part.exists()
    stored = replace(result, **open_output(final, stack))
    yaozarrs.validate_zarr_store(final)
    for (data, attributes, _), (want, plain, _) in zip(
        stored.layers(), result.layers(), strict=True
    ):
        layer = napari_layers.Image(data, **attributes)
        full = data[0] if attributes["multiscale"] else data
        np.testing.assert_array_equal(np.asarray(full), np.asarray(want))
        np.testing.assert_allclose(
            corners(layer), corners(napari_layers.Image(want, **plain))
        )
    again = stored.save(tmp_path / "copy.ome.tif")
    np.testing.assert_array_equal(
        pixels_of(as_stack(again[0])), pixels_of(as_stack(final))
    )


def test_channels_of_colour_do_not_fit_ome_zarr(tmp_path) -> None:
    result = result_for("CZYXS")
    with pytest.raises(FocusFusionError, match="Save as OME-TIFF"):
        result.save(tmp_path / "r.ome.zarr")
    assert os.listdir(tmp_path) == []
    read = as_stack(result.save(tmp_path / "r.tif")[0])
    np.testing.assert_array_equal(read.data[:], result.fused)


@pytest.mark.parametrize("name", ["r.ome.tif", "r.ome.zarr"])
def test_nothing_is_overwritten_unasked(name: str, tmp_path) -> None:
    path = tmp_path / name
    first, second = result_for("ZYX"), result_for("ZYX")
    second = replace(second, fused=second.fused + 1)
    first.save(path)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(FocusFusionError, match="exists already"):
        second.save(path)
    np.testing.assert_array_equal(pixels_of(as_stack(path))[0, 0], first.fused)
    second.save(path, overwrite=True)
    np.testing.assert_array_equal(pixels_of(as_stack(path))[0, 0], second.fused)
    assert sorted(os.listdir(tmp_path)) == before


def test_a_map_in_the_way_is_seen_before_anything_is_written(tmp_path) -> None:
    (tmp_path / "r_depth.ome.tif").write_text("mine")
    with pytest.raises(FocusFusionError, match=r"r_depth.*exists already"):
        result_for("ZYX").save(tmp_path / "r.ome.tif")
    assert os.listdir(tmp_path) == ["r_depth.ome.tif"]


def test_the_stack_itself_is_never_overwritten(tmp_path, monkeypatch) -> None:
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, np.ones((5, 30, 35), np.uint16))
    monkeypatch.chdir(tmp_path)
    result = replace(result_for("ZYX"), stack=as_stack("stack.tif"))
    for target in (path, "stack.tif"):
        with pytest.raises(FocusFusionError, match="the stack itself"):
            result.save(target, overwrite=True)
    assert tifffile.imread(path).all()
    zarr.create_group("z.zarr").create_array("raw", data=np.ones((5, 30, 35), "u2"))
    os.symlink("z.zarr", "link.zarr")
    result = replace(result, stack=as_stack("z.zarr/raw"))
    for target in ("z.zarr", "link.zarr"):
        with pytest.raises(FocusFusionError, match="the stack itself"):
            result.save(target, overwrite=True)
    assert as_stack("z.zarr/raw").read(0, ALL, ALL, ALL).all()


def test_a_folder_is_never_replaced(tmp_path) -> None:
    for name in ("r.ome.zarr", "r.tif"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").write_text("mine")
        with pytest.raises(FocusFusionError, match="is a folder"):
            result_for("ZYX").save(tmp_path / name, overwrite=True)
        assert (tmp_path / name / "thesis.txt").exists()


def test_names_that_cannot_be_saved(tmp_path) -> None:
    result = result_for("ZYX")
    with pytest.raises(FocusFusionError, match=r"\.ome\.tif or \.ome\.zarr"):
        result.save(tmp_path / "r.png")
    with pytest.raises(FocusFusionError, match="does not exist"):
        result.save(tmp_path / "nowhere" / "r.tif")


@pytest.mark.parametrize("name", ["r.ome.tif", "r.ome.zarr"])
def test_a_failed_save_leaves_nothing(name: str, tmp_path) -> None:
    pytest.importorskip("resource", reason="limits of file size need Unix")
    code = f"""
import resource, signal
import numpy as np
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.result import FusionResult
from napari_focus_fusion.opening import as_stack
rng = np.random.default_rng(0)
stack = as_stack(np.zeros((2, 300, 300), np.uint16))
noise = rng.random((300, 300)).astype(np.float32)
result = FusionResult(stack.data[0], stack.data[0], noise, noise, stack, {{}})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    result.save({str(tmp_path / name)!r})
except FocusFusionError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "Cannot save in" in done.stdout, done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write")
def test_a_folder_without_permission(tmp_path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(FocusFusionError, match="no permission"):
        result_for("ZYX").save(tmp_path / "r.tif")


@pytest.mark.parametrize("name", ["r.ome.tif", "r.ome.zarr"])
def test_large_results_are_saved_by_region(name: str, tmp_path) -> None:
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("address space is measured on Linux only")
    code = f"""
import resource
import numpy as np
import zarr
from napari_focus_fusion.result import FusionResult
from napari_focus_fusion.opening import as_stack
def empty(dtype, shape=(6000, 6000)):
    return zarr.create_array({{}}, shape=shape, chunks=(512, 512), dtype=dtype)
small = as_stack(np.zeros((2, 40, 40), np.uint16))
maps = [np.zeros((40, 40), t) for t in ("u2", "f4", "f4")]
FusionResult(small.data[0], *maps, small, {{}}).save({str(tmp_path / ("w" + name))!r})
stack = as_stack(zarr.create_array({{}}, shape=(2, 6000, 6000), dtype="u2"))
result = FusionResult(empty("u2"), empty("u2"), empty("f4"), empty("f4"), stack, {{}})
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 100 * 2**20, used + 100 * 2**20))
result.save({str(tmp_path / name)!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True)
