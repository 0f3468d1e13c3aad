"""What varies in the names of files."""

from __future__ import annotations

from itertools import product

import pytest

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.read.name_axes import is_no_slice, set_by_axes, sets_by_name


def every(pattern: str, **values: object) -> list[str]:
    """All names that a pattern gives with values for its fields."""
    found = product(*values.values())  # type: ignore[call-overload]
    return [pattern.format(**dict(zip(values, one, strict=True))) for one in found]


def arrangement(names: list[str]) -> list[tuple[str, tuple[int, ...]]]:
    return [(found.axes, found.shape) for found in sets_by_name(names)]


Z3, C2, T2 = range(3), range(2), range(2)


@pytest.mark.parametrize(
    ("names", "axes", "shape"),
    [
        # Micro-Manager 1.4 and 2, whatever the channel is called
        (every("img_000000000_{c}_{z:03d}.tif", c=["DAPI", "GFP"], z=Z3), "CZ", (2, 3)),
        (every("img_{t:09d}_{c}_{z:03d}.tif", t=T2, c=["Cy5", "x"], z=Z3), "TCZ", 0),
        (every("img_{t:09d}_Default_{z:03d}.tif", t=T2, z=Z3), "TZ", (2, 3)),
        (
            every(
                "img_channel{c:03d}_position000_time{t:09d}_z{z:03d}.tif",
                c=C2,
                t=T2,
                z=Z3,
            ),
            "TCZ",
            0,
        ),
        (
            every("img_channel{c}_time{t:09d}_z{z:03d}.tif", c=["BF", "x"], t=T2, z=Z3),
            "TCZ",
            0,
        ),
        # Leica, Zeiss, MetaMorph, Yokogawa, Operetta, ImageJ, InCell
        (every("Pos001_S001_z{z:02d}_ch{c:02d}.tif", z=Z3, c=C2), "CZ", (2, 3)),
        (every("scan_z{z}c{c}.tif", z=Z3, c=["1", "1+2"]), "CZ", (2, 3)),
        (every("exp_w{c}_s1_t{t}_z{z}.tif", c=["1DAPI", "2GFP"], t=T2, z=Z3), "TCZ", 0),
        (every("p_A01_T0001F001L01A0{c}Z0{z}C0{c}.tif", c=[1, 2], z=Z3), "CZ", (2, 3)),
        (
            every("r01c01f01p0{z}-ch{c}sk1fk1fl1.tiff", z=[1, 2, 3], c=[1, 2]),
            "CZ",
            (2, 3),
        ),
        (every("stack_t{t:03d}_z{z:03d}_c{c:03d}.tif", t=T2, z=Z3, c=C2), "TCZ", 0),
        (
            every("A - 01(fld 1 wv {c} z {z}).tif", c=["Cy3", "FITC"], z=Z3),
            "CZ",
            (2, 3),
        ),
        # cameras, plain counts, lasers
        (["DSC_0009.JPG", "DSC_0010.JPG", "DSC_0011.JPG"], "Z", (3,)),
        (["a0.png", "a1.png", "a2.png"], "Z", (3,)),
        (["lytro-01-A.jpg", "lytro-01-B.jpg"], "Z", (2,)),
        (
            ["20230101_120001.jpg", "20230101_120059.jpg", "20230101_120107.jpg"],
            "Z",
            (3,),
        ),
        (every("im_{c}_{z:02d}.tif", c=[405, 488], z=Z3), "CZ", (2, 3)),
        (every("z{z}/img.tif", z=Z3), "Z", (3,)),
        (every("t{t:02d}_c{c}_z{z:03d}.tif", t=T2, c=[1, 2], z=Z3), "TCZ", 0),
        (every("img_C{c}_Z{z:02d}.tif", c=[1, 2], z=Z3), "CZ", (2, 3)),
        (every("a_z{z}_c{c:02d}.tif", c=[1, 2], z=Z3), "CZ", (2, 3)),
        (every("{t}min_z{z}.tif", t=[10, 20], z=Z3), "TZ", (2, 3)),
        # without a count of slices
        (["c1.tif", "c2.tif"], "C", (2,)),
        (every("c{c:02d}.tif", c=range(1, 10)), "C", (9,)),
        (["1h.tif", "30min.tif"], "T", (2,)),
        (["DAPI.tif", "GFP.tif"], "C", (2,)),
        (["t1.tif", "t2.tif"], "T", (2,)),
    ],
)
def test_one_stack(names: list[str], axes: str, shape: object) -> None:
    (found,) = sets_by_name(names)
    assert found.axes == axes
    assert found.shape == (shape or (2, 2, 3))
    assert sorted(found.files) == sorted(names)
    assert found.notes == ()


@pytest.mark.parametrize(
    ("names", "count"),
    [
        (every("{r}{c:02d}_z{z:02d}.tif", r="AB", c=[1, 2], z=Z3), 4),
        (every("A{c:02d}_{z:02d}.tif", c=[1, 2], z=Z3), 2),
        (every("C{c:02d}_z{z:02d}.tif", c=range(1, 13), z=Z3), 12),
        (every("{r}{c}_z{z:02d}.tif", r="CD", c=[1, 2], z=Z3), 4),
        (every("exp_s{s}_z{z}.tif", s=[1, 2], z=Z3), 2),
        (every("img_pos{p}_{z:03d}.tif", p=[1, 2], z=Z3), 2),
        (every("img_{w}_z{z}.tif", w=["control", "treated"], z=Z3), 2),
        (every("{w}_{z:03d}.png", w=["eye", "wing"], z=Z3), 2),
        (["0001_DAPI.tif", "0002_GFP.tif", "0003_DAPI.tif", "0004_GFP.tif"], 2),
    ],
)
def test_several_stacks(names: list[str], count: int) -> None:
    sets = sets_by_name(names)
    assert [found.axes for found in sets] == ["Z"] * count
    assert sum(len(found.files) for found in sets) == len(names)


def test_channels_of_each_position_stay_together() -> None:
    names = every("exp_A01_s{s}_w{w}_z{z}.tif", s=[1, 2], w=[1, 2], z=Z3)
    assert arrangement(names) == [("CZ", (2, 3))] * 2
    assert arrangement(["pos1.tif", "pos2.tif"]) == [("", ()), ("", ())]


@pytest.mark.parametrize(
    "numbers",
    [
        ["-1.50", "-1.00", "-0.50", "0.00", "0.50", "1.00"],
        ["-2", "-1", "+0", "+1", "+2", "+10"],
        ["0", "0.5", "0.75", "1", "1.25", "1.5"],
        ["0,5", "0,75", "1,0", "1,25"],
        ["-1.5um", "0um", "1.5um", "12um"],
        ["-500nm", "0nm", "500nm", "1um", "0.002mm"],
        ["½", "1", "1½", "2¼", "10"],
        ["9", "10", "11", "100"],
    ],
)
def test_numbers_are_in_the_order_of_their_values(numbers: list[str]) -> None:
    names = [f"z{number}.png" for number in numbers]
    (found,) = sets_by_name(sorted(names))
    assert list(found.files) == names


def test_a_hyphen_before_all_numbers_is_no_sign() -> None:
    (found,) = sets_by_name(["z-10.png", "z-2.png", "z-1.png"])
    assert found.files == ("z-1.png", "z-2.png", "z-10.png")


def test_distances_in_names() -> None:
    (found,) = sets_by_name([f"a_z{z}um.png" for z in ("-0.5", "0.0", "0.5")])
    assert (found.spacing, found.notes) == (0.5, ())
    (found,) = sets_by_name([f"a_z{z}nm.png" for z in (0, 250, 500)])
    assert found.spacing == 0.25
    (found,) = sets_by_name([f"a z={z} µm.png" for z in ("-0.5", "+0.0", "+0.5")])
    assert found.spacing == 0.5
    (found,) = sets_by_name(["f_0nm.png", "f_500nm.png", "f_1um.png"])
    assert (found.spacing, found.notes) == (0.5, ())
    assert found.values == (("0nm", "500nm", "1um"),)
    for label in ("Z-position ", "z_pos_", "zstep"):
        (found,) = sets_by_name([f"{label}{z}um.png" for z in ("0", "1.5", "3")])
        assert (found.axes, found.spacing) == ("Z", 1.5)
    (found,) = sets_by_name([f"z{z}.png" for z in ("0", "0.5", "0.75")])
    assert found.spacing is None
    assert "0.25 to 0.5 apart" in found.notes[0]


def test_a_number_that_is_left_out_is_named() -> None:
    (found,) = sets_by_name([f"z{z:03d}.tif" for z in (0, 1, 2, 5, 6)])
    assert "leave out 003, 004" in found.notes[0]
    (found,) = sets_by_name([f"z{z:03d}.tif" for z in (0, 5, 10, 15)])
    assert found.notes == ()


def test_what_lacks_files_is_left_out_and_named() -> None:
    names = every("t{t}_z{z}.tif", t=range(3), z=range(4))[:-2]
    (found,) = sets_by_name(names)
    assert (found.axes, found.shape) == ("TZ", (2, 4))
    assert "time point 2" in found.notes[0]
    assert sorted(found.members) == names
    names = every("t{t}_z{z}.tif", t=range(2), z=range(6))
    names.remove("t1_z3.tif")
    (found,) = sets_by_name(names)
    assert found.values[1] == tuple("01245")
    assert ["slice 3" in note for note in found.notes] == [True]  # once
    names = ["cBF_z2.tif", *every("c{c}_z{z}.tif", c=["DAPI", "GFP"], z=range(4))]
    (found,) = sets_by_name(names)
    assert found.values[0] == ("cDAPI", "cGFP")
    assert "channel cBF" in found.notes[0]


@pytest.mark.parametrize("odd", ["overview.tif", "max_projection.tif", "z_test.tif"])
def test_the_odd_name_is_named(odd: str) -> None:
    names = [f"z{z:03d}.tif" for z in range(8)]
    with pytest.raises(FocusFusionError, match=rf"'{odd}' is named unlike the other 8"):
        sets_by_name([*names, odd])


@pytest.mark.parametrize(
    "names",
    [
        every("a_{a:02d}_{b:02d}.tif", a=range(2), b=range(3)),
        every("im.{a:04d}.{b:04d}.tif", a=range(2), b=range(3)),
        every("lytro-{a:02d}-{b}.jpg", a=range(1, 4), b="AB"),
        ["z1a.tif", "z1.tif", "2b.tif"],
    ],
)
def test_what_cannot_be_known_is_asked_for(names: list[str]) -> None:
    with pytest.raises(FocusFusionError, match=r"for each number in the order.*axes="):
        sets_by_name(names)


def test_axes_say_what_the_numbers_are() -> None:
    names = every("a_{z:02d}_{t:02d}.tif", z=range(3), t=range(2))
    found = set_by_axes(names, "ZT", in_order=False)
    assert (found.axes, found.shape, found.files) == ("ZT", (3, 2), tuple(names))
    assert set_by_axes(names, "Z", in_order=False).shape == (6,)
    with pytest.raises(FocusFusionError, match="2 parts of their names vary"):
        set_by_axes(names, "TCZ", in_order=False)


def test_a_guess_is_noted() -> None:
    (found,) = sets_by_name(["near.png", "far.png"])
    assert "in the order far, near" in found.notes[0]
    for names in (["A01.tif", "A02.tif"], ["cell_1.tif", "cell_2.tif"]):
        (found,) = sets_by_name(names)
        assert found.axes == "Z"
        assert "If these are positions or wells" in found.notes[0]


def test_a_list_keeps_its_order() -> None:
    names = ["z3.tif", "z1.tif", "z2.tif"]
    (found,) = sets_by_name(names, in_order=True)
    assert found.files == tuple(names)
    (found,) = sets_by_name(["near.tif", "IMG_001.tif"], in_order=True)
    assert (found.axes, found.files) == ("Z", ("near.tif", "IMG_001.tif"))
    names = every("{z}_{c}.tif", z=[3, 1], c=["DAPI", "GFP"])
    (found,) = sets_by_name(names, in_order=True)
    assert (found.axes, found.values) == ("CZ", (("DAPI", "GFP"), ("3", "1")))


def test_the_same_names_in_two_formats_are_two_stacks() -> None:
    names = [f"z{z}.{suffix}" for z in range(3) for suffix in ("tif", "png")]
    assert arrangement(names) == [("Z", (3,))] * 2
    assert arrangement(["z1.TIF", "z2.tif", "z3.tiff"]) == [("Z", (3,))]


def test_patterns_in_messages_are_those_of_the_files_alone() -> None:
    names = every("/d[1]/A01_s{s}_z{z}.tif", s=[1, 2], z=Z3)
    assert [found.pattern for found in sets_by_name(names)] == [
        "/d[[]1]/A01_s1_z*.tif",
        "/d[[]1]/A01_s2_z*.tif",
    ]


def test_thumbnails_and_hidden_files_are_no_slices() -> None:
    for name in (".z1.tif", "._z1.tif", "z1_thumb.png", "Thumbnail.jpg", "thumb_1.png"):
        assert is_no_slice(name)
    for name in ("z1.tif", "thumbtack_1.png"):
        assert not is_no_slice(name)
