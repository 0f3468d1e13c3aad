"""OME-TIFF and Micro-Manager data sets that are spread over files."""

from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.read.names import TIFF_SUFFIXES
from napari_focus_fusion.read.tiff_cut import opened_as_far_as_listed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_log = logging.getLogger("tifffile")
COMPANION_SUFFIX = ".companion.ome"
_ROOT_UUID = re.compile(r'<(?:\w+:)?OME\b[^>]*\bUUID="([^"]+)"')
# Kinds of tifffile's series whose planes are found one by one, and may be missing.
_PLANE_BY_PLANE = ("ome", "mmstack", "ndtiff")


def open_tiff(path: str) -> Any:
    """Open a TIFF with tifffile; files of its OME data set are found by their UUID.

    The metadata may be in another file of the set, and files may have been renamed.
    """
    import tifffile

    _log.addFilter(_is_news)

    if path.lower().endswith(COMPANION_SUFFIX):
        first, text = _first_of_companion(path)
        return tifffile.TiffFile(first, omexml=text, is_ome=True)
    tiff = opened_as_far_as_listed(path)
    try:
        xml = tiff.ome_metadata if tiff.is_ome else None
        resolved = None if xml is None else _resolved(path, xml)
    except BaseException:
        tiff.close()
        raise
    if resolved is None:
        return tiff
    tiff.close()
    return tifffile.TiffFile(path, omexml=resolved, is_ome=True)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether we do not say so ourselves, or even otherwise: nothing is zeroed here."""
    text = record.getMessage()
    said = ("Missing data are zeroed", "OME series failed to read")
    return not any(words in text for words in said)


def damaged_tiff(path: str, why: object) -> FocusFusionError:
    """What to say of a TIFF that cannot be read."""
    return FocusFusionError(
        f"{path!r} is damaged, incomplete or not a TIFF: {why}. Copy it again from "
        "where it was saved, or export it again."
    )


def files_of_set(path: str) -> set[str]:
    """Absolute paths of the files of a data set; of that file alone if it is none."""
    alone = {os.path.abspath(path)}
    if not path.lower().endswith(TIFF_SUFFIXES):
        return alone
    try:
        with open_tiff(path) as tiff:
            return alone.union(*(_files(image) for image in tiff.series))
    except Exception:  # whatever is wrong is said when it is opened
        return alone


def places_of_files(image: Any, axes: str | None) -> tuple[dict[str, Any], ...]:
    """Which file of a series holds what.

    Parameters
    ----------
    image
        Series of tifffile.
    axes
        Our letters for its axes.

    Returns
    -------
    tuple of dict
        For each file its path as ``"file"``, and its index along each axis where it
        holds one plane, or the number of its ``"planes"``. Empty for a single file.
    """
    files: dict[str, list[int]] = {}
    for index, page in _planes(image):
        files.setdefault(page.parent.filehandle.path, []).append(index)
    if len(files) < 2:
        return ()
    shape = _lead(image)
    letters = (axes or image.axes)[: len(shape)]
    found: list[dict[str, Any]] = []
    for file, planes in files.items():
        place: dict[str, Any] = {"planes": len(planes)}
        if len(planes) == 1:
            indices = np.unravel_index(planes[0], shape)
            place = {a: int(i) for a, i in zip(letters, indices, strict=True)}
        found.append({"file": file, **place})
    return tuple(found)


def notes_on_plan(tiff: Any, image: Any) -> tuple[str, ...]:
    """A note where Micro-Manager was to record more than there is."""
    if image.kind != "mmstack":
        return ()
    summary = (tiff.micromanager_metadata or {}).get("Summary", {})
    sizes = dict(zip(image.axes, image.shape, strict=True))
    words = {"T": "Frames", "C": "Channels", "Z": "Slices", "R": "Positions"}
    planned = {axis: int(summary.get(word, 1)) for axis, word in words.items()}
    short = [axis for axis, count in planned.items() if sizes.get(axis, 1) < count]
    if not short:
        return ()
    listed = ", ".join(
        f"{sizes.get(axis, 1)} of {planned[axis]} {words[axis].lower()}"
        for axis in short
    )
    return (
        f"Micro-Manager was to record more than there is: {listed}. Either it was "
        "stopped, or files of the data set are missing in the folder.",
    )


def present_planes(image: Any) -> NDArray[np.bool_] | None:
    """Whether each plane of a series is there, by the axes in front of the plane.

    None where all are.
    """
    shape = _lead(image)
    if image.kind not in _PLANE_BY_PLANE or len(image) != int(np.prod(shape)):
        return None
    present = np.zeros(len(image), bool)
    for index, _ in _planes(image):
        present[index] = True
    return None if present.all() else present.reshape(shape)


def _planes(image: Any) -> Iterator[tuple[int, Any]]:
    """The pages of a series that are there, with their place."""
    if image.kind in _PLANE_BY_PLANE:
        for index, page in enumerate(image):
            if page is not None and page.offset:
                yield index, page


def _lead(image: Any) -> tuple[int, ...]:
    return tuple(image.shape[: len(image.axes) - len(image.keyframe.axes)])


def _files(image: Any) -> set[str]:
    return {os.path.abspath(page.parent.filehandle.path) for _, page in _planes(image)}


# OME-XML ------------------------------------------------------------------------------


def _resolved(path: str, xml: str) -> str | None:
    """The OME-XML with the files as they are called now; None if it fits as it is."""
    if "BinaryOnly" not in xml and "FileName" not in xml:
        return None
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return None  # said where the metadata are read
    folder = os.path.dirname(os.path.abspath(path))
    binary = root.find("{*}BinaryOnly")
    if binary is not None:
        own = root.get("UUID")
        master = _metadata_of(folder, binary)
        if master is None:
            raise FocusFusionError(
                f"{path!r} is part of an OME data set whose metadata are in the file "
                f"{binary.get('MetadataFile')!r}, which is missing. Put it into the "
                "same folder."
            )
        root = master
        root.attrib.pop("UUID", None)
        if own:
            root.set("UUID", own)
    changed = _with_present_files(root, path, folder)
    if binary is None and not changed:
        return None
    return ElementTree.tostring(root, encoding="unicode")


def _with_present_files(root: ElementTree.Element, path: str, folder: str) -> bool:
    """Put the names that files have now for those that are gone; whether any was."""
    own, here = root.get("UUID"), os.path.basename(path)
    parts = [part for part in root.iter() if part.tag.endswith("}UUID")]
    gone = [
        part
        for part in parts
        if (part.text or "").strip() != own
        and not os.path.exists(os.path.join(folder, part.get("FileName", "")))
    ]
    if not gone:
        return False
    names = _names_by_uuid(folder)
    only = len({(part.text or "").strip() for part in parts}) == 1
    changed = False
    for part in gone:
        name = names.get((part.text or "").strip(), here if only else None)
        if name is not None:
            part.set("FileName", name)
            changed = True
    return changed


def _names_by_uuid(folder: str) -> dict[str, str]:
    names: dict[str, str] = {}
    for name in sorted(os.listdir(folder)):
        if name.lower().endswith(TIFF_SUFFIXES) and not name.startswith("."):
            match = _ROOT_UUID.search(_xml_in(folder, name))
            if match:
                names.setdefault(match[1], name)
    return names


def _metadata_of(
    folder: str, binary: ElementTree.Element
) -> ElementTree.Element | None:
    """The OME-XML that a file without metadata of its own points to."""
    name = os.path.basename(binary.get("MetadataFile", ""))
    xml = _xml_in(folder, name)
    if not xml:
        renamed = _names_by_uuid(folder).get(binary.get("UUID", ""))
        companions = [n for n in os.listdir(folder) if n.endswith(COMPANION_SUFFIX)]
        if renamed is None and len(companions) == 1:
            renamed = companions[0]
        xml = _xml_in(folder, renamed) if renamed else ""
    try:
        root = ElementTree.fromstring(xml) if xml else None
    except ElementTree.ParseError:
        return None
    return None if root is None or root.find("{*}Image") is None else root


def _xml_in(folder: str, name: str) -> str:
    """OME-XML of a TIFF or of a companion file; empty if there is none."""
    import tifffile

    path = os.path.join(folder, name)
    if not name or not os.path.isfile(path):
        return ""
    try:
        if not name.lower().endswith(TIFF_SUFFIXES):
            with open(path, encoding="utf-8") as file:
                return file.read()
        with tifffile.TiffFile(path) as tiff:
            return tiff.ome_metadata or ""
    except (OSError, ValueError, tifffile.TiffFileError):
        return ""


def _first_of_companion(path: str) -> tuple[str, str]:
    """The first TIFF that a companion file names, and its OME-XML for that file."""
    folder = os.path.dirname(os.path.abspath(path))
    try:
        root = ElementTree.fromstring(_xml_in(folder, os.path.basename(path)))
    except ElementTree.ParseError as error:
        raise FocusFusionError(
            f"{path!r} is damaged: its OME metadata are not XML ({error})."
        ) from error
    root.attrib.pop("UUID", None)
    _with_present_files(root, "", folder)
    for part in root.iter():
        name = part.get("FileName", "")
        if part.tag.endswith("}UUID") and os.path.exists(os.path.join(folder, name)):
            xml = ElementTree.tostring(root, encoding="unicode")
            return os.path.join(folder, name), xml
    raise FocusFusionError(
        f"None of the files that {path!r} describes is in its folder. Put all files of "
        "the data set into one folder."
    )
