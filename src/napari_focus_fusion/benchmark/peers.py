"""Other focus-stacking software, run through its own command or package.

`PEERS` is the table: how to see whether a program is there, how to install it, and how
to fuse a list of registered slices with it. None of their code is copied here; each
runs as its own manual says, with the settings for a stack that is registered and evenly
lit.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from napari_focus_fusion.errors import FocusFusionError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import DTypeLike, NDArray

Image: TypeAlias = "NDArray[Any]"


@dataclass(frozen=True)
class Peer:
    """A program to compare with.

    Attributes
    ----------
    name : str
        Key in `PEERS`.
    title : str
        Name in tables.
    note : str
        What to know when reading its figures.
    install : str
        How to install it.
    version : callable
        Returns the version found, or None where the program is not installed.
    run : callable
        Takes checked slices, returns the fused image; called by `fuse`.
    """

    name: str
    title: str
    note: str
    install: str
    version: Callable[[], str | None]
    run: Callable[[Sequence[Image]], Image]

    def state(self) -> str:
        """Return the version for tables, or "not installed"."""
        return self.version() or "not installed"

    def fuse(self, slices: Sequence[Image]) -> Image:
        """Fuse registered slices.

        Programs that are run as commands read and write files: time and memory include
        that and their start.

        Parameters
        ----------
        slices : sequence of arrays (Y, X) or (Y, X, 3)
            N >= 2 slices of one shape and dtype (integers up to 32 bits or floats).

        Returns
        -------
        array
            The fused image, of the slices' shape and dtype.

        Raises
        ------
        FocusFusionError
            If the program is not installed or fails, or the slices do not match.
        """
        images = [np.asarray(image) for image in slices]
        kinds = {(image.shape, image.dtype) for image in images}
        if len(kinds) != 1 or len(images) < 2:
            raise FocusFusionError(
                f"{self.title} needs two or more slices of one size and type."
            )
        first = images[0]
        if first.ndim != 2 and not (first.ndim == 3 and first.shape[2] == 3):
            raise FocusFusionError(
                f"{self.title} takes grey (Y, X) or RGB (Y, X, 3) slices, not those of "
                f"the shape {first.shape}."
            )
        if self.version() is None:
            raise FocusFusionError(f"{self.title} is not installed: {self.install}.")
        return _in_type(self.run(images), first.dtype)


def _in_type(image: Image, dtype: DTypeLike) -> Image:
    """Round and clip `image` to `dtype`."""
    if image.dtype != dtype and np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        image = np.clip(np.rint(image), info.min, info.max)
    return image.astype(dtype, copy=False)


# Through files


def _output_of(title: str, command: Sequence[str | Path], folder: str | Path) -> str:
    """Run a command to its end and return what it printed."""
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        last = " / ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise FocusFusionError(
            f"{title} failed (exit status {done.returncode}): {last}"
        )
    return done.stdout


def _through_files(
    title: str,
    slices: Sequence[Image],
    levels: type[np.unsignedinteger],
    command: Callable[[list[Path], Path], Sequence[str | Path]],
    *,
    as_colour: bool = False,
    may_crop: bool = False,
) -> Image:
    """Write the slices as TIFF, run a command on them, read what it wrote.

    `levels` is the type of the files, uint8 or uint16. Slices of another type are
    spread over its whole range, so that a dim 12-bit stack does not drown in 8 bits,
    and the result is brought back. `as_colour` writes grey slices as RGB;
    `may_crop` takes a result that is smaller.
    """
    import tifffile

    first = slices[0]
    low, high, top = 0.0, 1.0, 1.0
    if first.dtype != levels:
        low = min(float(image.min()) for image in slices)
        high = max(float(image.max()) for image in slices)
        high = high if high > low else low + 1
        top = float(np.iinfo(levels).max)
    with TemporaryDirectory(prefix="focus-fusion-") as name:
        folder = Path(name)
        (folder / "slices").mkdir()
        paths = [folder / "slices" / f"{z:04d}.tif" for z in range(len(slices))]
        for path, image in zip(paths, slices, strict=True):
            pixels = image
            if first.dtype != levels:
                pixels = (pixels - low) / (high - low) * top
            if as_colour and image.ndim == 2:
                pixels = np.stack([pixels] * 3, axis=2)
            photometric = "rgb" if pixels.ndim == 3 else "minisblack"
            tifffile.imwrite(path, _in_type(pixels, levels), photometric=photometric)
        expected = folder / "fused.tif"
        _output_of(title, command(paths, expected), folder)
        # Shine Stacker names its file itself
        written = (
            [expected] if expected.exists() else [*(folder / "fused").glob("*.tif")]
        )
        if len(written) != 1:
            raise FocusFusionError(f"{title} ended without writing a fused image.")
        fused: Image = tifffile.imread(written[0])
    if fused.ndim == 3:  # an alpha channel, or grey written as RGB
        fused = fused[..., :3] if first.ndim == 3 else fused[..., 0]
    fits = fused.shape == first.shape or may_crop
    if not fits or fused.dtype != levels:
        raise FocusFusionError(
            f"{title} returned a picture of {fused.shape} {fused.dtype}, not of "
            f"{first.shape} {np.dtype(levels)}."
        )
    return fused if first.dtype == levels else fused / top * (high - low) + low


def _file_levels(slices: Sequence[Image]) -> type[np.unsignedinteger]:
    return np.uint8 if slices[0].dtype == np.uint8 else np.uint16


def _command_version(command: str) -> str | None:
    """Return the first line that a command on the PATH prints for --version."""
    path = shutil.which(command)
    if path is None:
        return None
    printed = _output_of(command, [path, "--version"], Path.cwd()).strip()
    return printed.splitlines()[0] if printed else command


def _enfuse(slices: Sequence[Image]) -> Image:
    def command(paths: list[Path], output: Path) -> list[str | Path]:
        # The settings that its manual gives for focus stacks
        return [
            "enfuse",
            "--exposure-weight=0",
            "--saturation-weight=0",
            "--contrast-weight=1",
            "--hard-mask",
            f"--output={output}",
            *paths,
        ]

    return _through_files("enfuse", slices, _file_levels(slices), command)


def _focus_stack(slices: Sequence[Image]) -> Image:
    def command(paths: list[Path], output: Path) -> list[str | Path]:
        # It writes 8 bits only and always aligns the slices
        return [
            "focus-stack",
            "--nocrop",
            "--no-whitebalance",
            "--no-contrast",
            f"--output={output}",
            *paths,
        ]

    return _through_files("focus-stack", slices, np.uint8, command)


def _focusweave(slices: Sequence[Image]) -> Image:
    def command(paths: list[Path], output: Path) -> list[str | Path]:
        options = ["--no-align", "--keep-size", "--workers", "1"]
        return ["focusweave", paths[0].parent, "--output", output, *options]

    levels = _file_levels(slices)
    return _through_files("focusweave", slices, levels, command, as_colour=True)


# OpenFocus: its command does not tell its version, the interpreter beside it does.


def _openfocus(slices: Sequence[Image], method: str, *, align: bool = False) -> Image:
    moving = ["--align=none", "--no-exposure-match"]
    if align:
        moving = ["--align=openfocus", "--exposure-match"]

    def command(paths: list[Path], output: Path) -> list[str | Path]:
        options = ["--cpu", "--threads=1", *moving]
        files: list[str | Path] = ["--input", paths[0].parent, "--output", output]
        return ["openfocus", *files, "--method", method, *options]

    levels = _file_levels(slices)
    return _through_files(
        "OpenFocus", slices, levels, command, as_colour=True, may_crop=align
    )


# Shine Stacker: its command opens a window, its package can be scripted. It brings a
# whole Qt and may live in an environment of its own, beside its command.

_SHINE_SCRIPT = """
import sys
import shinestacker as shine
job = shine.StackJob("job", sys.argv[1], input_path="slices")
method = getattr(shine, sys.argv[2])()
job.add_action(shine.FocusStack("fused", method, exif_path=""))
sys.exit(0 if job.run() else 1)
"""


def _python_of(package: str, command: str) -> str | None:
    """Return an interpreter that can import a package, or that of its command."""
    if find_spec(package):
        return sys.executable
    path = shutil.which(command)
    if path is None:
        return None
    return shutil.which("python", path=str(Path(path).resolve().parent))


def _shine_python() -> str | None:
    return _python_of("shinestacker", "shinestacker")


def _version_beside(title: str, package: str, python: str | None) -> str | None:
    """Return the version of a package that an interpreter can import."""
    if python is None:
        return None
    script = f"from importlib import metadata; print(metadata.version({package!r}))"
    return _output_of(title, [python, "-E", "-c", script], Path.cwd()).strip()


def _shine_version() -> str | None:
    return _version_beside("Shine Stacker", "shinestacker", _shine_python())


def _openfocus_version() -> str | None:
    if shutil.which("openfocus") is None:
        return None
    # its package is called core, so that the command must be looked for
    python = _python_of("openfocus", "openfocus")
    return _version_beside("OpenFocus", "openfocus", python)


def _shine_stacker(slices: Sequence[Image], method: str) -> Image:
    def command(paths: list[Path], output: Path) -> list[str | Path]:
        python = str(_shine_python())
        return [python, "-E", "-c", _SHINE_SCRIPT, output.parent, method]

    levels = _file_levels(slices)
    return _through_files("Shine Stacker", slices, levels, command, as_colour=True)


# As packages


def _package_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _opencv_version() -> str | None:
    if find_spec("cv2") is None:
        return None
    return str(import_module("cv2").__version__)


def _opencv_pyramid(slices: Sequence[Image]) -> Image:
    """Keep, at every level of a Laplacian pyramid, what is strongest around a pixel."""
    cv2: Any = import_module("cv2")
    levels = max(1, int(np.log2(min(slices[0].shape[:2]))) - 3)
    best: list[Image] = []
    kept: list[Image] = []
    base: Any = 0.0
    for image in slices:
        finer = image.astype(np.float32)
        for level in range(levels):
            coarser = cv2.pyrDown(finer)
            detail = finer - cv2.pyrUp(coarser, dstsize=finer.shape[1::-1])
            strength = (
                np.abs(detail) if detail.ndim == 2 else np.abs(detail).sum(axis=2)
            )
            strength = cv2.GaussianBlur(strength, (5, 5), 0)
            if level == len(kept):
                kept.append(detail)
                best.append(strength)
            else:
                stronger = strength > best[level]
                kept[level][stronger] = detail[stronger]
                np.maximum(best[level], strength, out=best[level])
            finer = coarser
        base = base + finer / len(slices)
    for detail in reversed(kept):
        base = cv2.pyrUp(base, dstsize=detail.shape[1::-1]) + detail
    return np.asarray(base)


def _opencv_log(slices: Sequence[Image]) -> Image:
    """Take each pixel where the Laplacian of a Gaussian, summed over 9 x 9, is most."""
    cv2: Any = import_module("cv2")
    best: Any = None
    fused = slices[0].copy()
    for image in slices:
        grey = image.astype(np.float32)
        grey = grey if grey.ndim == 2 else grey.mean(axis=2)
        smooth = cv2.GaussianBlur(grey, (0, 0), 1.0)
        strength = cv2.boxFilter(np.abs(cv2.Laplacian(smooth, -1)), -1, (9, 9))
        if best is None:
            best = strength
            continue
        stronger = strength > best
        fused[stronger] = image[stronger]
        np.maximum(best, strength, out=best)
    return fused


def _clesperanto_version() -> str | None:
    if find_spec("pyclesperanto") is None:
        return None
    try:
        devices = import_module("pyclesperanto").list_available_devices()
    except (ImportError, RuntimeError, OSError):  # no OpenCL driver
        return None
    version = _package_version("pyclesperanto")
    return f"{version} on {devices[0]}" if devices else None


def _clesperanto(slices: Sequence[Image]) -> Image:
    pyclesperanto: Any = import_module("pyclesperanto")

    def fuse(stack: Image) -> Image:
        projected = pyclesperanto.extended_depth_of_focus_sobel_projection(stack)
        return np.asarray(pyclesperanto.pull(projected))

    stack = np.stack(slices).astype(np.float32)
    if stack.ndim == 3:
        return fuse(stack)
    channels = (np.ascontiguousarray(stack[..., c]) for c in range(stack.shape[3]))
    return np.stack([fuse(channel) for channel in channels], axis=2)


PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer(
            "opencv-pyramid",
            "Laplacian pyramid (OpenCV)",
            "a few lines of ours around cv2.pyrDown and cv2.pyrUp",
            "pip install opencv-python-headless",
            _opencv_version,
            _opencv_pyramid,
        ),
        Peer(
            "opencv-log",
            "Laplacian of a Gaussian (OpenCV)",
            "a few lines of ours: the slice of the most energy in 9 x 9 pixels",
            "pip install opencv-python-headless",
            _opencv_version,
            _opencv_log,
        ),
        Peer(
            "focus-stack",
            "focus-stack (complex wavelets)",
            "8-bit output; always aligns the slices",
            "see https://github.com/PetteriAimonen/focus-stack/releases",
            lambda: _command_version("focus-stack"),
            _focus_stack,
        ),
        Peer(
            "enfuse",
            "enfuse",
            "contrast weight, hard mask",
            "apt install enfuse, or with Hugin from https://hugin.sourceforge.io",
            lambda: _command_version("enfuse"),
            _enfuse,
        ),
        Peer(
            "shine-pyramid",
            "Shine Stacker, pyramid",
            "default settings",
            "pipx install shinestacker (Python 3.12 or newer)",
            _shine_version,
            lambda slices: _shine_stacker(slices, "PyramidStack"),
        ),
        Peer(
            "shine-depth-map",
            "Shine Stacker, depth map",
            "default settings",
            "pipx install shinestacker (Python 3.12 or newer)",
            _shine_version,
            lambda slices: _shine_stacker(slices, "DepthMapStack"),
        ),
        Peer(
            "openfocus-stackmff",
            "OpenFocus, StackMFF V3",
            "default settings, without registration and levelling of brightness",
            "pipx install openfocus",
            _openfocus_version,
            lambda slices: _openfocus(slices, "stackmffv3"),
        ),
        Peer(
            "openfocus-guided",
            "OpenFocus, guided filter",
            "default settings, without registration and levelling of brightness",
            "pipx install openfocus",
            _openfocus_version,
            lambda slices: _openfocus(slices, "guided_filter"),
        ),
        Peer(
            "focusweave",
            "FocusWeave",
            "default settings, without registration",
            "pipx install focusweave",
            lambda: _command_version("focusweave"),
            _focusweave,
        ),
        Peer(
            "clesperanto",
            "clEsperanto, extended depth of focus (Sobel)",
            "default settings; colour channels one by one",
            "pip install pyclesperanto, and an OpenCL driver (apt install "
            "pocl-opencl-icd for processors)",
            _clesperanto_version,
            _clesperanto,
        ),
    )
}

#: For stacks that drift, on a page of their own.
OPENFOCUS_ALIGNED = Peer(
    "openfocus-aligned",
    "OpenFocus, aligned",
    "StackMFF V3, --align openfocus, exposures matched",
    "pipx install openfocus",
    _openfocus_version,
    lambda slices: _openfocus(slices, "stackmffv3", align=True),
)
