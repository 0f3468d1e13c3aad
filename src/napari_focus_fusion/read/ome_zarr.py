"""OME-Zarr 0.4 and 0.5, and plain Zarr, as sources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from napari_focus_fusion.axes import axes_from_names, axes_of_array, unit_name
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.metadata import METADATA_KEY
from napari_focus_fusion.read.names import stem
from napari_focus_fusion.read.source import Source

if TYPE_CHECKING:
    from napari_focus_fusion.lazy import Pixels


def read_zarr(
    path: str, *, axes: str | None = None, series: int | None = None
) -> Source:
    """Open an OME-Zarr image or a plain Zarr array by path or address, lazily.

    Raises
    ------
    FocusFusionError
        If it is neither, or a collection and `series` does not select an image.
    """
    import zarr

    try:
        node = zarr.open(path, mode="r")
    except Exception as error:  # stores and file systems raise errors of any type
        raise FocusFusionError(
            f"{path!r} cannot be opened as Zarr: {error}. Check that the folder was "
            "copied completely."
        ) from error
    if isinstance(node, zarr.Group):
        return read_group(node, axes=axes, series=series, path=path)
    return Source(node, axes=axes_of_array(node), name=stem(path), path=path)


def read_group(
    group: Any,
    *,
    axes: str | None = None,
    series: int | None = None,
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
    ome = dict(group.attrs).get("ome", group.attrs)
    if "multiscales" not in ome:
        return read_group(_member(group, ome, series, source), axes=axes, path=source)
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
    fields = _fields(image, letters, ome) if len(letters) == image.ndim else {}
    name = image.name or stem(source)
    return Source(image.data, axes=known, name=name, path=source, **fields)


def _fields(image: _Image, letters: str, ome: Any) -> dict[str, Any]:
    """Sizes, names and display of an image whose dimensions have these letters."""
    units = zip(letters, [axis.get("unit") for axis in image.axes], strict=False)
    fields: dict[str, Any] = {
        "scale": {a: s for a, s in zip(letters, image.scale, strict=True) if a != "S"},
        "units": {a: unit_name(u) for a, u in units if u is not None},
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
    scale: list[float]
    translate: list[float]
    name: str

    @property
    def ndim(self) -> int:
        return len(self.data.shape)

    @classmethod
    def of(cls, group: Any, ome: Any) -> _Image:
        multiscale = ome["multiscales"][0]
        dataset = multiscale["datasets"][0]
        data = group[dataset["path"]]
        axes = [
            {"name": axis} if isinstance(axis, str) else axis  # 0.3 has bare names
            for axis in multiscale.get("axes", ())
        ]
        scale, translate = [1.0] * data.ndim, [0.0] * data.ndim
        for transform in (
            *dataset.get("coordinateTransformations", ()),
            *multiscale.get("coordinateTransformations", ()),
        ):
            if "scale" in transform:
                factors = [float(f) for f in transform["scale"]]
                scale = [s * f for s, f in zip(scale, factors, strict=True)]
                translate = [t * f for t, f in zip(translate, factors, strict=True)]
            if "translation" in transform:
                shifts = [float(f) for f in transform["translation"]]
                translate = [t + f for t, f in zip(translate, shifts, strict=True)]
        return cls(data, axes, scale, translate, str(multiscale.get("name") or ""))


def _member(group: Any, ome: Any, series: int | None, source: str) -> Any:
    """Choose an image out of a collection of images."""
    if "plate" in ome or "well" in ome:
        raise FocusFusionError(
            f"{source!r} is a plate or a well, not one image. Give the path of a "
            "field, for example plate.ome.zarr/A/1/0."
        )
    images = sorted(
        (
            name
            for name, member in group.groups()
            if "multiscales" in dict(member.attrs).get("ome", member.attrs)
        ),
        key=lambda name: (len(name), name),
    )
    if not images:
        arrays = ", ".join(name for name, _ in group.arrays())
        inside = f" Inside are the arrays {arrays}: give the path of one." * bool(
            arrays
        )
        raise FocusFusionError(f"{source!r} is a Zarr group without an image.{inside}")
    if series is None and len(images) > 1:
        raise FocusFusionError(
            f"{source!r} holds {len(images)} images ({', '.join(images[:8])}). Give "
            "the path of one, or say which one with series=0, 1, ..."
        )
    if not 0 <= (series or 0) < len(images):
        raise FocusFusionError(
            f"{source!r} has no image {series}; it has {len(images)}, counted from 0."
        )
    return group[images[series or 0]]


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
