"""Files of microscope makers (CZI, ND2, LIF, ...), through BioIO where it is installed.

Which files it reads depends on the readers that are installed beside it. It gives all
of them the axes T, C, Z, Y and X, and sizes in micrometres.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.read.names import stem
from napari_focus_fusion.read.series import (
    index_of_series,
    name_of_series,
    names_of_series,
)
from napari_focus_fusion.read.sizes import agreed_sizes
from napari_focus_fusion.read.source import Source

if TYPE_CHECKING:
    from napari_focus_fusion.read.sizes import Stated

#: Endings of makers' files, and the package that reads them; others are tried too.
MAKERS_READERS = {
    **{".czi": "bioio-czi", ".nd2": "bioio-nd2", ".lif": "bioio-lif"},
    **{".dv": "bioio-dv", ".r3d": "bioio-dv", ".sldy": "bioio-sldy"},
    **dict.fromkeys((".oib", ".oif", ".oir", ".vsi", ".ims"), "bioio-bioformats"),
    **dict.fromkeys((".lof", ".xlef", ".mvd2", ".ets"), "bioio-bioformats"),
}
_HERE = "TCZYXS"


def read_with_bioio(path: str, *, series: int | str | None = None) -> Source:
    """Open a file through BioIO, reading no pixels.

    Raises
    ------
    FocusFusionError
        If BioIO or its reader for such files is not installed, the file is damaged, or
        it holds several images and `series` does not select one.
    """
    image = _opened(path)
    names = names_of_series([str(scene) for scene in image.scenes])
    if series is None and len(names) > 1:
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise FocusFusionError(
            f"{path!r} holds {len(names)} images ({shown}). Say which one with "
            "series=0, 1, ... or its name; on the command line --series all means each "
            "of them."
        )
    number = index_of_series(names, series, path) if series is not None else 0
    try:
        image.set_scene(number)
        _check_dimensions(image, path)
        return _source(image, path, names, number)
    except FocusFusionError:
        raise
    except Exception as error:  # readers raise errors of any type
        raise _damaged(path, error) from error


def series_with_bioio(path: str) -> list[str]:
    """Names of the images of a file; see :func:`read_with_bioio` on what is raised."""
    return names_of_series([str(scene) for scene in _opened(path).scenes])


def _source(image: Any, path: str, names: list[str], number: int) -> Source:
    data, axes = image.dask_data, str(image.dims.order)
    # It makes axes that the file does not have.
    single = [axis for axis in "TC" if axis in axes and image.dims[axis][0] == 1]
    kept = tuple(0 if axis in single else slice(None) for axis in axes)
    axes = "".join(axis for axis in axes if axis not in single)
    sizes = agreed_sizes([_sizes(image)], axes)
    channels = [str(name) for name in image.channel_names or ()]
    count = image.dims["C"][0] if "C" in image.dims.order else 1
    return Source(
        data[kept],
        axes=axes,
        name=name_of_series(path, names[number]) if len(names) > 1 else stem(path),
        path=path,
        scale=sizes.scale,
        units=sizes.units,
        channel_names=tuple(channels) if len(channels) == count else (),
        notes=sizes.notes,
    )


def _sizes(image: Any) -> dict[str, Stated]:
    stated: dict[str, Stated] = {
        axis: (getattr(image.physical_pixel_sizes, axis), "micrometer")
        for axis in "ZYX"
        if getattr(image.physical_pixel_sizes, axis) is not None
    }
    interval = getattr(image, "time_interval", None)
    if interval is not None:
        seconds = getattr(interval, "total_seconds", lambda: interval)()
        stated["T"] = (seconds, "second")
    return stated


def _check_dimensions(image: Any, path: str) -> None:
    """Raise where BioIO would silently take the first of several views or tiles."""
    dimensions = image.reader.dims
    more = [
        f"{axis} ({dimensions[axis][0]})"
        for axis in dimensions.order
        if axis not in _HERE and axis != "M" and dimensions[axis][0] > 1
    ]
    if more:
        raise FocusFusionError(
            f"{path!r} has the further dimensions {', '.join(more)}, which are not "
            "read here. Export what is one stack as OME-TIFF."
        )


def _opened(path: str) -> Any:
    suffix = os.path.splitext(path)[1].lower()
    reader = MAKERS_READERS.get(suffix)
    try:
        from bioio import BioImage
        from bioio_base.exceptions import UnsupportedFileFormatError
    except ImportError:
        raise FocusFusionError(
            f"{path!r}: files of type {suffix or '(no ending)'} are not read here "
            'without BioIO. Install it with pip install "napari-focus-fusion[bioio]"'
            + (f" {reader}" if reader else "")
            + ", or export the stack as OME-TIFF or OME-Zarr, or open it in napari "
            "with the plugin for your microscope and fuse the layer."
        ) from None
    try:
        try:
            # A plane is read at a time, not a whole stack.
            return BioImage(path, chunk_dims=["Y", "X"])
        except TypeError:  # not all readers have that choice
            return BioImage(path)
    except (UnsupportedFileFormatError, ImportError) as error:
        if reader and find_spec(reader.replace("-", "_")) is not None:
            raise _damaged(path, error) from error
        advice = f"Install {reader}" if reader else "Install the reader for it"
        raise FocusFusionError(
            f"{path!r}: BioIO has no reader for files of type "
            f"{suffix or '(no ending)'} here. {advice}, or export the stack as "
            "OME-TIFF or OME-Zarr."
        ) from error
    except Exception as error:  # readers raise errors of any type
        raise _damaged(path, error) from error


def _damaged(path: str, error: Exception) -> FocusFusionError:
    return FocusFusionError(
        f"{path!r} cannot be read: {error}. Copy it again from where it was saved, or "
        "export it as OME-TIFF."
    )
