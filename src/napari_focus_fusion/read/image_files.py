"""PNG, JPEG and BMP: one slice a file, decoded when it is read."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.lazy import LazyArray
from napari_focus_fusion.read.names import stem
from napari_focus_fusion.read.source import Source

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Pillow's mode of a file -> what its pixels are read as.
_GREY = {"L": "uint8", "I": "int32", "F": "float32", "I;16": "uint16"}
_COLOUR = {
    **dict.fromkeys(("P", "RGB", "CMYK", "YCbCr", "LAB", "HSV"), "RGB"),
    **dict.fromkeys(("LA", "PA", "RGBA"), "RGBA"),
}


class ImageFile(LazyArray):
    """One image file as an array of ``(y, x)`` or ``(y, x, 3 or 4)``."""

    def __init__(self, path: str) -> None:
        self.path = path
        with _opened(path) as image:
            mode = image.mode
            self._deep = ";16" in str([tile[3] for tile in image.tile])
            self._mode = _COLOUR.get(mode)
            if mode == "P" and "transparency" in image.info:
                self._mode = "RGBA"
            width, height = image.size
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
        samples = () if self._mode is None else (len(self._mode),)
        shape = (height, width, *samples)
        dtype = _GREY[mode] if self._mode is None else "uint8"
        # The file is decoded as a whole.
        super().__init__(shape, "uint16" if self._deep else dtype, chunks=shape)

    def _region(self, spans: tuple[slice, ...]) -> NDArray[Any]:
        pixels = self._decode()
        if pixels.shape != self.shape:
            raise FocusFusionError(
                f"{self.path!r} changed while it was in use: {pixels.shape}, before "
                f"{self.shape}."
            )
        return pixels[spans]

    def _decode(self) -> NDArray[Any]:
        if self._deep and self._mode is not None:
            return self._decode_deep_colour()
        with _opened(self.path) as image:
            try:
                converted = image if self._mode is None else image.convert(self._mode)
                return np.asarray(converted).astype(self.dtype, copy=False)
            except (OSError, ValueError, SyntaxError) as error:
                raise FocusFusionError(
                    f"{self.path!r} is damaged and cannot be read: {error}. Copy it "
                    "again from where it was saved."
                ) from error

    def _decode_deep_colour(self) -> NDArray[Any]:
        """Decode 16-bit colour PNG, which Pillow would cut to 8 bits."""
        import imagecodecs

        with open(self.path, "rb") as file:
            pixels = np.asarray(imagecodecs.png_decode(file.read()))
        if pixels.shape[-1] == 2:  # grey with alpha
            pixels = pixels[..., [0, 0, 0, 1]]
        return pixels


def read_image_file(path: str) -> Source:
    """Open a PNG, JPEG or BMP file, which holds one slice, reading no pixels.

    Raises
    ------
    FocusFusionError
        If it is damaged, or its pixels are of a kind that has no focus.
    """
    image = ImageFile(path)
    axes = "YXS" if image.ndim == 3 else "YX"
    return Source(image, axes=axes, name=stem(path), path=path)


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
