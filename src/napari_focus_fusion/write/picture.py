"""Writes PNG and JPEG: one grey or colour image, with the metadata that fit."""

from __future__ import annotations

import json
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.axes import METRES
from napari_focus_fusion.errors import FocusFusionError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
_JPEG_QUALITY = 95
_LARGEST_JPEG = 65535


def check_picture(
    path: Path, shape: tuple[int, ...], axes: str, dtype: np.dtype
) -> None:
    """Raise if a format of pictures cannot hold a result.

    Parameters
    ----------
    path
        File to write, whose ending is the format.
    shape, axes, dtype
        Of the fused image.

    Raises
    ------
    FocusFusionError
        Saying what does not fit, and which format to choose.
    """
    jpeg = path.suffix.lower() != ".png"
    kind = "JPEG" if jpeg else "PNG"
    sizes = dict(zip(axes, shape, strict=True))
    several = [
        f"{n} {what}"
        for axis, what in (("T", "time points"), ("C", "channels"))
        if (n := sizes.get(axis, 1)) > 1
    ]
    why = f"the result has {' and '.join(several)}, and {kind} holds one image"
    if not several:
        allowed = ("uint8",) if jpeg else ("uint8", "uint16")
        bits = "8 bits" if jpeg else "8 or 16 bits"
        why = ""
        if str(dtype) not in allowed:
            why = f"the result is {dtype}, and {kind} holds {bits} a sample"
        elif jpeg and sizes.get("S") == 4:
            why = "the result has an alpha channel, which JPEG cannot hold"
        elif jpeg and max(sizes["Y"], sizes["X"]) > _LARGEST_JPEG:
            why = f"JPEG holds at most {_LARGEST_JPEG} pixels a side"
    if why:
        raise FocusFusionError(
            f"{str(path)!r}: {why}. Save it as .ome.tif or .ome.zarr"
            + (" (or .png)." if jpeg and not several else ".")
        )


def write_picture(
    path: Path,
    data: Any,
    axes: str,
    *,
    suffix: str,
    pixel_sizes: Mapping[str, tuple[float, str]],
    description: Mapping[str, Any],
) -> None:
    """Write one image as PNG or JPEG.

    Parameters
    ----------
    path
        File to write.
    data, axes
        What :func:`check_picture` has let pass.
    suffix
        Ending that stands for the format.
    pixel_sizes
        Size and unit per axis letter; those of X and Y are written where they are
        lengths.
    description
        Stored as JSON in the image's description.
    """
    pixels = np.asarray(data)
    pixels = pixels.reshape(
        [n for n, axis in zip(pixels.shape, axes, strict=True) if axis in "YXS"]
    )
    sizes = [_in_metres(*pixel_sizes.get(axis, (1, "pixel"))) for axis in "XY"]
    text = json.dumps(description, default=str)
    if suffix.lower() == ".png":
        path.write_bytes(_png(pixels, sizes, text))
    else:
        _write_jpeg(path, pixels, sizes, text)


def _in_metres(size: float, unit: str) -> float | None:
    return size * METRES[unit] if unit in METRES else None


def _png(pixels: NDArray[Any], sizes: list[float | None], text: str) -> bytes:
    import imagecodecs

    encoded = bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels)))
    chunks = [_chunk(b"tEXt", b"Software\0napari-focus-fusion")]
    chunks.append(_chunk(b"iTXt", b"Description\0\0\0\0\0" + text.encode()))
    per_metre = [round(1 / size) if size else 0 for size in sizes]
    if all(0 < n < 2**31 for n in per_metre):
        chunks.append(_chunk(b"pHYs", struct.pack(">IIB", *per_metre, 1)))
    head = 8 + 25  # the signature, and the first chunk with the size of the image
    return encoded[:head] + b"".join(chunks) + encoded[head:]


def _chunk(kind: bytes, body: bytes) -> bytes:
    check = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)


def _write_jpeg(
    path: Path, pixels: NDArray[Any], sizes: list[float | None], text: str
) -> None:
    from PIL import Image
    from PIL.TiffImagePlugin import IFDRational

    exif = Image.Exif()
    exif[305] = "napari-focus-fusion"
    if len(text) < 60_000:  # all of it has to fit into 64 kB
        exif[270] = text
    if all(sizes):
        for tag, size in zip((282, 283), sizes, strict=True):
            # Nanometres a pixel leave room for any of them.
            exif[tag] = IFDRational(10_000_000, max(1, round((size or 1) * 1e9)))
        exif[296] = 3  # per centimetre
    Image.fromarray(np.ascontiguousarray(pixels)).save(
        path, "JPEG", quality=_JPEG_QUALITY, subsampling=0, exif=exif
    )
