"""Images as measures take them, and enlarged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_focus_fusion.stack import FocusStack

    Array = NDArray[Any]


def split_images(array: Any, axes: str) -> list[Array]:
    """Split an image into what measures take: one array a time point and channel.

    Parameters
    ----------
    array
        Image with these axes.
    axes
        Out of ``TCZYXS``, Y and X among them.

    Returns
    -------
    list of ndarray
        (Y, X) or (Y, X, 3), after Z where there is one; no alpha.
    """
    ordered = np.asarray(array).transpose(
        [axes.index(axis) for axis in "TCZYXS" if axis in axes]
    )
    lead = sum(axis in axes for axis in "TC")
    images = ordered.reshape(-1, *ordered.shape[lead:])
    return [image[..., :3] if "S" in axes else image for image in images]


def slices_of(stack: FocusStack) -> list[Array]:
    """All slices of a stack as measures take them, see `split_images`."""
    return split_images(stack.data[(slice(None),) * len(stack.axes)], stack.axes)


def bicubic(images: Array, size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize by cubic interpolation (a = -0.75, pixel centres aligned, no antialias).

    The same as OpenCV's ``INTER_CUBIC``, to rounding.

    Parameters
    ----------
    images : ndarray
        float (N, Y, X) or (N, Y, X, S).
    size : (int, int)
        New height and width.

    Returns
    -------
    ndarray
        float32; overshoots as cubics do.
    """
    import torch
    from torch.nn.functional import interpolate

    grey = images.ndim == 3
    batch = torch.from_numpy(np.array(images, np.float32))
    batch = batch[..., None] if grey else batch
    resized = interpolate(
        batch.permute(0, 3, 1, 2), size, mode="bicubic", align_corners=False
    )
    result = resized.permute(0, 2, 3, 1).numpy()
    return np.ascontiguousarray(result[..., 0] if grey else result)
