"""PNG, JPEG, JPEG 2000, WebP, GIF and BMP: decoded by image when they are read."""

from __future__ import annotations

import os
import struct
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.lazy import LazyArray
from napari_focus_fusion.read.names import stem
from napari_focus_fusion.read.photometry import rgba_of_grey, turned, turned_size
from napari_focus_fusion.read.sizes import is_for_print
from napari_focus_fusion.read.source import Source

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Pillow's mode of a file -> what its pixels are read as.
_GREY = {"L": "uint8", "I": "int32", "F": "float32", "I;16": "uint16"}
_COLOUR = {
    **dict.fromkeys(("P", "RGB", "CMYK", "YCbCr", "LAB", "HSV"), "RGB"),
    **dict.fromkeys(("LA", "PA", "RGBA"), "RGBA"),
}
_JPEG_2000 = (".jp2", ".j2k", ".jpx")
# Formats whose further images are slices; in a JPEG they are previews.
_MANY = ("GIF", "PNG", "WEBP")
_ORIENTATION = 274


class ImageFile(LazyArray):
    """An image file as an array of ``([z,] y, x [, 3 or 4])``, as a viewer shows it.

    A file of several images, as GIF, WebP and PNG can be, has a leading axis.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        with _opened(path) as image:
            mode = image.mode
            self._deep = ";16" in str([tile[3] for tile in image.tile])
            self._mode = _COLOUR.get(mode)
            if mode == "P" and "transparency" in image.info:
                self._mode = "RGBA"
            width, height = image.size
            self._count = getattr(image, "n_frames", 1) if image.format in _MANY else 1
            self._orientation = _orientation(image, path)
            #: Micrometres a pixel along Y and X, where the file has them.
            self.scale = _resolution(image, self._orientation)
        if self._mode is None and mode.startswith("I;16"):
            mode = "I;16"
        if self._mode is None and mode not in _GREY:
            raise FocusFusionError(
                f"{path!r} is a black-and-white (one bit) picture, which has no sharp "
                "or blurred parts. Choose the image it was made from."
                if mode == "1"
                else f"{path!r} has pixels of kind {mode!r}, which are not read here. "
                "Save it as grey, RGB or RGBA."
            )
        if self._count > 1 and self._deep and self._mode is not None:
            raise FocusFusionError(
                f"{path!r} holds {self._count} images of 16 bits a colour, which are "
                "not read here. Save them one by one, or as TIFF."
            )
        self._grey = None if self._mode else mode
        samples = () if self._mode is None else (len(self._mode),)
        plane = (*turned_size(height, width, self._orientation), *samples)
        dtype = _GREY[mode] if self._mode is None else "uint8"
        # An image is decoded as a whole.
        shape = plane if self._count == 1 else (self._count, *plane)
        chunks = plane if self._count == 1 else (1, *plane)
        super().__init__(shape, "uint16" if self._deep else dtype, chunks=chunks)

    def _region(self, spans: tuple[slice, ...]) -> NDArray[Any]:
        if self._count == 1:
            return self._checked(self._decode(0), self.shape)[spans]
        numbers = range(*spans[0].indices(self._count))
        planes = [
            self._checked(self._decode(i), self.shape[1:])[spans[1:]] for i in numbers
        ]
        return np.stack(planes) if planes else np.empty((0, 0, 0), self.dtype)

    def _checked(self, pixels: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        if pixels.shape != shape:
            raise FocusFusionError(
                f"{self.path!r} changed while it was in use: {pixels.shape}, before "
                f"{shape}."
            )
        return pixels

    def _decode(self, number: int) -> NDArray[Any]:
        if self._deep and self._mode is not None:
            return turned(self._decode_deep_colour(), self._orientation)
        with _opened(self.path) as image:
            try:
                if number:
                    image.seek(number)
                pixels = np.asarray(self._converted(image, number))
            except FocusFusionError:
                raise
            except (OSError, ValueError, SyntaxError) as error:
                raise FocusFusionError(
                    f"{self.path!r} is damaged and cannot be read: {error}. Copy it "
                    "again from where it was saved."
                ) from error
        return turned(pixels.astype(self.dtype, copy=False), self._orientation)

    def _converted(self, image: Any, number: int) -> Any:
        if self._mode is not None:
            return image.convert(self._mode)
        if number and image.mode != self._grey:  # later images of a GIF are RGB
            red, green, blue = image.convert("RGB").split()
            if not red.tobytes() == green.tobytes() == blue.tobytes():
                raise FocusFusionError(
                    f"{self.path!r}: image {number} is in colour, but the first is "
                    "grey. Save them all as RGB."
                )
            return red
        return image

    def _decode_deep_colour(self) -> NDArray[Any]:
        """Decode 16-bit colour PNG, which Pillow would cut to 8 bits."""
        import imagecodecs

        with open(self.path, "rb") as file:
            pixels = np.asarray(imagecodecs.png_decode(file.read()))
        return rgba_of_grey(pixels) if pixels.shape[-1] == 2 else pixels


class Jpeg2000(LazyArray):
    """One JPEG 2000 file as an array of ``(y, x)`` or ``(y, x, 3 or 4)``."""

    def __init__(self, path: str) -> None:
        self.path = path
        height, width, self._samples, bits = _jpeg_2000_size(path)
        if bits > 16 or self._samples > 4:
            raise FocusFusionError(
                f"{path!r} has {self._samples} samples of {bits} bits a pixel, which "
                "are not read here. Save it as grey or RGB of 8 or 16 bits."
            )
        samples = {1: (), 2: (4,)}.get(self._samples, (self._samples,))
        shape = (height, width, *samples)
        super().__init__(shape, "uint8" if bits <= 8 else "uint16", chunks=shape)

    def _region(self, spans: tuple[slice, ...]) -> NDArray[Any]:
        import imagecodecs

        with open(self.path, "rb") as file:
            stored = file.read()
        try:
            pixels = np.asarray(imagecodecs.jpeg2k_decode(stored))
        except Exception as error:  # codecs raise errors of any type
            raise FocusFusionError(
                f"{self.path!r} is damaged and cannot be read: {error}. Copy it again "
                "from where it was saved."
            ) from error
        if self._samples == 2:
            pixels = rgba_of_grey(pixels)
        return pixels.reshape(self.shape).astype(self.dtype, copy=False)[spans]


def read_image_file(path: str) -> Source:
    """Open an image file, reading no pixels.

    Raises
    ------
    FocusFusionError
        If it is damaged, or its pixels are of a kind that has no focus.
    """
    image: ImageFile | Jpeg2000
    scale: dict[str, float] = {}
    if path.lower().endswith(_JPEG_2000):
        image, several = Jpeg2000(path), False
    else:
        image = ImageFile(path)
        several, scale = image.chunks != image.shape, image.scale
    colour = image.ndim - several == 3
    axes = ("Z" if several else "") + "YX" + ("S" if colour else "")
    units = dict.fromkeys(scale, "micrometer")
    return Source(
        image, axes=axes, name=stem(path), path=path, scale=scale, units=units
    )


def description_of_picture(path: str) -> str:
    """Description in the metadata of a PNG or JPEG; empty where there is none."""
    with _opened(path) as image:
        if image.format == "PNG":  # its other properties would decode the pixels
            return str(image.info.get("Description", ""))
        return str(image.getexif().get(270, ""))


def _opened(path: str) -> Any:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            # Large is normal for a slide; Pillow takes it for an attack.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(path)
    except Image.DecompressionBombError as error:
        raise FocusFusionError(
            f"{path!r} is too large for its format, which can only be read as a whole. "
            "Save it as tiled TIFF or OME-Zarr, which is read by region."
        ) from error
    except (OSError, SyntaxError) as error:
        raise FocusFusionError(
            f"{path!r} cannot be read as a picture: {error}."
        ) from error


def _orientation(image: Any, path: str) -> int:
    """Orientation by the EXIF of an image, 1 where it has none.

    Of a PNG it may follow the pixels, which Pillow decodes to reach it; here they are
    skipped.
    """
    from PIL import Image

    try:
        if image.format != "PNG":
            return int(image.getexif().get(_ORIENTATION, 1))
        exif = Image.Exif()
        exif.load(image.info.get("exif") or _png_exif(path))
        return int(exif.get(_ORIENTATION, 1))
    except (OSError, SyntaxError, ValueError, TypeError, struct.error):
        return 1


def _resolution(image: Any, orientation: int) -> dict[str, float]:
    """Pixel sizes by the resolution of a picture, unless it is for print or screen."""
    per_inch = image.info.get("dpi")
    if image.format == "JPEG":
        exif = image.getexif()
        inches = {2: 1.0, 3: 2.54}.get(exif.get(296, 2), 1.0)
        if 282 in exif and 283 in exif:
            per_inch = [float(exif[tag]) * inches for tag in (282, 283)]
    if image.format not in ("PNG", "JPEG") or per_inch is None:
        return {}
    if not all(0 < dots < 1e9 and not is_for_print(dots) for dots in per_inch):
        return {}
    x, y = (float(f"{25_400 / dots:.6g}") for dots in per_inch)
    if orientation > 4:
        x, y = y, x
    return {"Y": y, "X": x}


def _png_exif(path: str) -> bytes:
    with open(path, "rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"eXIf":
                return b"Exif\0\0" + file.read(length)
            file.seek(length + 4, os.SEEK_CUR)
    return b""


def _jpeg_2000_size(path: str) -> tuple[int, int, int, int]:
    """Rows, columns, samples a pixel and bits a sample, by the codestream's header."""
    with open(path, "rb") as file:
        head = file.read(1 << 16)
    start = head.find(b"\xff\x4f\xff\x51")
    try:
        sizes = struct.unpack(">8IH", head[start + 8 : start + 42])
        bits = (head[start + 42] & 0x7F) + 1
    except (struct.error, IndexError):
        start = -1
    if start < 0:
        raise FocusFusionError(f"{path!r} cannot be read as a JPEG 2000 picture.")
    width, height = sizes[0] - sizes[2], sizes[1] - sizes[3]
    return height, width, sizes[8], bits
