"""OME-Zarr 0.4 and 0.5, and plain Zarr, as sources."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from napari_focus_fusion.axes import axes_from_names, axes_of_array, unit_name
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.metadata import METADATA_KEY
from napari_focus_fusion.read.names import ZIPPED_ZARR_SUFFIXES, stem
from napari_focus_fusion.read.sizes import agreed_sizes, note_on_count
from napari_focus_fusion.read.source import Source
from napari_focus_fusion.read.zarr_chunks import notes_on_chunks
from napari_focus_fusion.read.zarr_collection import (
    choose_image,
    ome_attributes,
    paths_of_images,
    sizes_in_ome_xml,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from napari_focus_fusion.lazy import Pixels
    from napari_focus_fusion.read.sizes import Stated


def read_zarr(
    path: str, *, axes: str | None = None, series: int | str | None = None
) -> Source:
    """Open an OME-Zarr image or a plain Zarr array by path or address, lazily.

    Raises
    ------
    FocusFusionError
        If it is neither, or a collection and `series` does not select an image.
    """
    node = _open_zarr(path)
    if hasattr(node, "members"):
        return read_group(node, axes=axes, series=series, path=path)
    known = axes_of_array(node)
    notes = notes_on_chunks(node, axes or known)
    return Source(node, axes=known, name=stem(path), path=path, notes=notes)


def series_in_zarr(path: str) -> list[str]:
    """Paths of the images of a collection, within it; the name of a single image.

    Raises
    ------
    FocusFusionError
        If it cannot be opened.
    """
    node = _open_zarr(path)
    images = paths_of_images(node) if hasattr(node, "members") else []
    return images or [stem(path)]


def is_plate(path: str) -> bool:
    """Whether a path is that of a plate or a well; addresses are not looked at."""
    if "://" in path or not os.path.isdir(path):
        return False
    node = _open_zarr(path)
    return hasattr(node, "members") and not {"plate", "well"}.isdisjoint(
        ome_attributes(node)
    )


def _open_zarr(path: str) -> Any:
    import zarr

    try:
        if path.lower().endswith(ZIPPED_ZARR_SUFFIXES):
            return zarr.open(zarr.storage.ZipStore(path, mode="r"), mode="r")
        return zarr.open(path, mode="r")
    except ImportError as error:
        raise FocusFusionError(
            f"{path!r} is an address, for which another package is needed: {error}. "
            'Install it, for example with pip install "fsspec[http]" or "fsspec[s3]".'
        ) from error
    except Exception as error:  # stores and file systems raise errors of any type
        advice = "the address is right" if "://" in path else "it was copied completely"
        raise FocusFusionError(
            f"{path!r} cannot be opened as Zarr: {error}. Check that {advice}."
        ) from error


def read_group(
    group: Any,
    *,
    axes: str | None = None,
    series: int | str | None = None,
    path: str | None = None,
) -> Source:
    """Open a Zarr group with OME-Zarr metadata: full resolution, axes, scale, units.

    Parameters
    ----------
    group
        ``zarr.Group`` of an image, or of a collection of images.
    axes
        The caller's letters, one a dimension: an axis that is renamed keeps its place,
        hence its pixel size.
    series
        Which image of a collection.
    path
        What the source is called; None: where the group is stored.

    Raises
    ------
    FocusFusionError
        If the metadata are damaged, or name axes that are not known and `axes` is None.
    """
    source = path or str(group.store_path)
    ome = ome_attributes(group)
    if "multiscales" not in ome:
        member = choose_image(group, series, source)
        return _read_member(group, member, axes, source)
    if series not in (None, 0, "0"):
        raise FocusFusionError(f"{source!r} is one image; it has no image {series}.")
    try:
        image = _Image.of(group, ome)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise FocusFusionError(
            f"{source!r}: the OME-Zarr metadata are damaged or point to what is not "
            f"there ({error!r}). Check that the folder was copied completely."
        ) from error
    names = [axis["name"] for axis in image.axes]
    known = axes_from_names(names, image.ndim)
    ours: Any = group.attrs.get(METADATA_KEY, {})
    if known and "S" in ours.get("axes", ""):  # RGB, which OME-Zarr has as channels
        known = known.replace("C", "S")
    if names and known is None and axes is None:
        raise FocusFusionError(
            f"{source!r} has axes {', '.join(map(str, names))}, of which not all are "
            'known here (t, c, z, y, x). Name them, for example axes="ZYX".'
        )
    letters = (axes or known or "").upper()
    fields = {}
    if len(letters) == image.ndim:
        fields = _fields(image, letters, ome, sizes_in_ome_xml(group))
    fields["notes"] = (
        *fields.get("notes", ()),
        *notes_on_chunks(image.data, letters),
    )
    name = image.name or stem(source)
    return Source(image.data, axes=known, name=name, path=source, **fields)


def _fields(
    image: _Image, letters: str, ome: Any, beside: Mapping[str, Stated]
) -> dict[str, Any]:
    """Sizes, names and display of an image whose dimensions have these letters.

    `beside` are sizes in OME-XML, which count where the Zarr has none.
    """
    listed = zip(letters, [axis.get("unit") for axis in image.axes], strict=False)
    units = {a: unit_name(u) for a, u in listed if u is not None}
    factors = zip(letters, image.scale or (), strict=False)
    stated = {a: (s, "") for a, s in factors if a != "S"}
    for axis, (size, unit) in beside.items():
        unknown = stated.get(axis, (1.0, ""))[0] == 1 and axis not in units
        if axis in letters and (unknown or image.scale is None):
            stated[axis], units[axis] = (size, ""), unit
    sizes = agreed_sizes([stated], letters)
    fields: dict[str, Any] = {
        "scale": sizes.scale,
        "units": units,
        "notes": (*image.notes, *sizes.notes),
    }
    display = _omero_display(ome.get("omero", {}))
    names = display.pop("names", ())
    if "S" in letters:
        display = {}
    count = image.data.shape[letters.index("C")] if "C" in letters else 1
    if len(names) == count:
        fields["channel_names"] = names
    if any(image.translate):
        display["translate"] = tuple(
            t for a, t in zip(letters, image.translate, strict=True) if a != "S"
        )
    return {**fields, "display": display}


class _Image(NamedTuple):
    """Full resolution of the first image that a group's metadata describe."""

    data: Pixels
    axes: list[dict[str, Any]]
    scale: list[float] | None  # None: not one number an axis
    translate: list[float]
    name: str
    notes: tuple[str, ...] = ()

    @property
    def ndim(self) -> int:
        return len(self.data.shape)

    @classmethod
    def of(cls, group: Any, ome: Any) -> _Image:
        multiscale = ome["multiscales"][0]
        dataset = multiscale["datasets"][0]
        data = group[dataset["path"]]
        axes = _axes_of(multiscale, len(data.shape))
        scale, translate = [1.0] * len(data.shape), [0.0] * len(data.shape)
        notes: list[str] = []
        known = True
        for transform in _transforms(dataset, multiscale):
            factors = _numbers(transform.get("scale"), len(scale), notes)
            shifts = _numbers(transform.get("translation"), len(scale), notes)
            known = known and (factors is not None or "scale" not in transform)
            if factors is not None:
                scale = [s * f for s, f in zip(scale, factors, strict=True)]
                translate = [t * f for t, f in zip(translate, factors, strict=True)]
            if shifts is not None:
                translate = [t + f for t, f in zip(translate, shifts, strict=True)]
        name = str(multiscale.get("name") or "")
        sizes = scale if known else None
        return cls(data, axes, sizes, translate, name, tuple(notes))


def _axes_of(multiscale: Any, ndim: int) -> list[dict[str, Any]]:
    """Axes with their names and units; before 0.3 there were five, always the same."""
    axes = multiscale.get("axes", ())
    if not axes and multiscale.get("coordinateSystems"):  # 0.6
        axes = multiscale["coordinateSystems"][-1]["axes"]
    if not axes and ndim == 5:
        axes = "tczyx"
    # 0.3 has bare names
    return [{"name": axis} if isinstance(axis, str) else axis for axis in axes]


def _transforms(dataset: Any, multiscale: Any) -> Iterator[Any]:
    """From pixels to world: those of the dataset, then those of all of them."""
    for transform in (
        *dataset.get("coordinateTransformations", ()),
        *multiscale.get("coordinateTransformations", ()),
    ):
        yield from transform.get("transformations", (transform,))  # a sequence, 0.6


def _numbers(values: Any, count: int, notes: list[str]) -> list[float] | None:
    """Numbers of a transform, one an axis; None, and a note, if they are not that."""
    if values is None:
        return None
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) == count:
        return numbers
    notes.append(note_on_count(values, count))
    return None


def _read_member(group: Any, member: str, axes: str | None, source: str) -> Source:
    """One image of a collection, which its source and name tell from the others."""
    path = f"{source.rstrip('/')}/{member}"
    try:
        image = group[member]
    except KeyError as error:
        raise FocusFusionError(
            f"{path!r} is listed in {source!r}, but is not there. Copy it completely."
        ) from error
    if not hasattr(image, "members") or "multiscales" not in ome_attributes(image):
        raise FocusFusionError(
            f"{path!r} is listed in {source!r} as an image, but is none. Check that it "
            "was copied completely."
        )
    return replace(read_group(image, axes=axes, path=path), name=stem(path))


def _omero_display(omero: Any) -> dict[str, Any]:
    """Names, colours and contrast limits of channels as napari layer state."""
    channels = omero.get("channels", ())
    display: dict[str, Any] = {}
    if channels and all(channel.get("label") for channel in channels):
        display["names"] = tuple(str(channel["label"]) for channel in channels)
    if channels and all(channel.get("color") for channel in channels):
        colours = [f"#{str(channel['color']).lstrip('#')[:6]}" for channel in channels]
        display["colormap"] = colours
    windows = [channel.get("window", {}) for channel in channels]
    if windows and all("start" in w and "end" in w for w in windows):
        limits = [(float(w["start"]), float(w["end"])) for w in windows]
        if all(low < high for low, high in limits):
            display["contrast_limits"] = limits
    return display
