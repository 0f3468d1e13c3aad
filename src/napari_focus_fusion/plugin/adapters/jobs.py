"""Fusions whose settings and data are fixed before they start, to run in a thread."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_focus_fusion.plugin.adapters.layers import OUTPUTS, fuse_to_layers
from napari_focus_fusion.plugin.adapters.models import with_models
from napari_focus_fusion.plugin.adapters.projections import ONE_SLICE, SlabOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from napari_focus_fusion.progress import Progress
    from napari_focus_fusion.result import FusionResult
    from napari_focus_fusion.stack import FocusStack


@dataclass(frozen=True)
class FuseJob:
    """The settings and data of a run, fixed before it starts.

    Attributes
    ----------
    stack
        The stack to fuse.
    outputs
        Which layers the result gives.
    options
        Keyword arguments of :func:`napari_focus_fusion.fuse`.
    folder
        Where fine-tuned models are; None: the usual one.
    """

    stack: FocusStack
    outputs: tuple[str, ...] = OUTPUTS
    options: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    def __call__(
        self, progress: Callable[[Progress], None], should_stop: Callable[[], bool]
    ) -> FusionResult:
        """Run; raises `Cancelled` once `should_stop` returns True."""
        from napari_focus_fusion.fusion import fuse

        return fuse(
            self.stack,
            progress=progress,
            should_stop=should_stop,
            **with_models(self.options, self.folder),
        )


@dataclass(frozen=True)
class LayersJob(FuseJob):
    """A fusion whose layers are made in the thread too.

    Attributes
    ----------
    slab
        What is projected around the surface.
    """

    slab: SlabOptions = ONE_SLICE

    def __call__(
        self, progress: Callable[[Progress], None], should_stop: Callable[[], bool]
    ) -> Any:
        """Run; gives layer data as :func:`fuse_to_layers` does."""
        return fuse_to_layers(
            self.stack,
            self.outputs,
            folder=self.folder,
            slab=self.slab,
            progress=progress,
            should_stop=should_stop,
            **self.options,
        )
