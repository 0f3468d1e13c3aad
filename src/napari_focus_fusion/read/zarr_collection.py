"""Collections of OME-Zarr images: plates, wells, and series of bioformats2raw."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.read.series import index_of_series
from napari_focus_fusion.read.tiff_sizes import ome_sizes

if TYPE_CHECKING:
    from napari_focus_fusion.read.sizes import Stated


def ome_attributes(group: Any) -> dict[str, Any]:
    """OME metadata of a Zarr group: under ``ome`` since 0.5, beside others before."""
    attributes = dict(group.attrs)
    ome = attributes.get("ome", attributes)
    return ome if isinstance(ome, dict) else {}


def paths_of_images(group: Any) -> list[str]:
    """Paths of all images of a collection, within it; empty for one image.

    Wells that the metadata list and that are not there are named all the same, so that
    they are missed where they are opened.
    """
    ome = ome_attributes(group)
    if "multiscales" in ome:
        return []
    if isinstance(ome.get("plate"), dict):
        return [
            path
            for well in ome["plate"].get("wells", ())
            for path in _fields_of_well(group, str(well["path"]).strip("/"))
        ]
    if isinstance(ome.get("well"), dict):
        return _fields(ome["well"])
    return _listed_series(group) or _images_in(group)


def choose_image(group: Any, series: int | str | None, source: str) -> str:
    """Path of one image of a collection, within it.

    Raises
    ------
    FocusFusionError
        If there is none, none like that, or several and `series` is None.
    """
    images = paths_of_images(group)
    ome = ome_attributes(group)
    kind = next((word for word in ("plate", "well") if word in ome), "")
    if not images:
        what = f"a {kind} without a field" if kind else "a Zarr group without an image"
        arrays = ", ".join(name for name, _ in group.arrays())
        inside = f" Inside are the arrays {arrays}: give the path of one."
        raise FocusFusionError(f"{source!r} is {what}.{inside if arrays else ''}")
    if series is not None:
        return images[index_of_series(images, series, source)]
    if len(images) == 1:
        return images[0]
    shown = ", ".join(images[:8]) + (", ..." if len(images) > 8 else "")
    what = (
        f"is a {kind} of {len(images)} fields"
        if kind
        else f"holds {len(images)} images"
    )
    raise FocusFusionError(
        f"{source!r} {what} ({shown}). Say which one with series={images[0]!r}, or "
        f"give its path, {source.rstrip('/')}/{images[0]}; on the command line "
        "--series all means each of them."
    )


def _fields_of_well(plate: Any, path: str) -> list[str]:
    try:
        well = plate[path]
    except KeyError:
        return [path]
    fields = _fields(ome_attributes(well).get("well")) or _images_in(well)
    return [f"{path}/{field}" for field in fields] or [path]


def _images_in(group: Any) -> list[str]:
    """Names of the images right in a group, 2 before 10."""
    found = [
        name
        for name, member in group.groups()
        if "multiscales" in ome_attributes(member)
    ]
    return sorted(found, key=lambda name: (len(name), name))


def _fields(well: Any) -> list[str]:
    images = well.get("images", ()) if isinstance(well, dict) else ()
    return [str(image["path"]).strip("/") for image in images]


def sizes_in_ome_xml(group: Any) -> dict[str, Stated]:
    """Pixel sizes of a series that bioformats2raw left in ``OME/METADATA.ome.xml``.

    Parameters
    ----------
    group
        ``zarr.Group`` of the series, beside which the folder ``OME`` lies; empty if it
        is not on this machine's disks.
    """
    root = getattr(group.store_path.store, "root", None)
    if root is None:
        return {}
    folder, name = os.path.split(os.path.join(root, group.store_path.path).rstrip("/"))
    file = os.path.join(folder, "OME", "METADATA.ome.xml")
    if not os.path.isfile(file):
        return {}
    try:
        import zarr

        listed = _listed_series(zarr.open_group(folder, mode="r"))
        images = ElementTree.parse(file).getroot().findall("{*}Image")
        pixels = images[listed.index(name) if listed else int(name)].find("{*}Pixels")
    except (OSError, ValueError, IndexError, ElementTree.ParseError):
        return {}
    return {} if pixels is None else ome_sizes(pixels)


def _listed_series(group: Any) -> list[str]:
    """Images in the order of the file that bioformats2raw converted."""
    try:
        series = ome_attributes(group["OME"]).get("series", ())
    except (KeyError, TypeError):
        return []
    return [str(path) for path in series]
