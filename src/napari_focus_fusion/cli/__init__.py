"""The command line: ``napari-focus-fusion COMMAND``, see ``--help``.

Exit codes: 0 all went well, 1 something failed, 2 the command made no sense, 130
interrupted. Results go to standard output, progress and errors to standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import re
import shlex
import signal
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_focus_fusion._version import __version__
from napari_focus_fusion.errors import Cancelled, FocusFusionError
from napari_focus_fusion.opening import ZARR_SUFFIX, Job, find_jobs
from napari_focus_fusion.read import PICTURE_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType

    from numpy.typing import NDArray

    from napari_focus_fusion.progress import Progress
    from napari_focus_fusion.stack import FocusStack

WRITABLE = (".tif", ".tiff", ZARR_SUFFIX)

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


class UsageError(Exception):
    """The command line asks for something that cannot be meant."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    args = _parser().parse_args(argv)
    try:
        code = int(args.run(args))
        sys.stdout.flush()
        return code
    except UsageError as error:
        _say_error(str(error))
        return USAGE
    except (Cancelled, KeyboardInterrupt):
        _say_error("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # whoever read on, like `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except Exception as error:
        if args.debug:
            raise
        _say_error(_in_one_line(error))
        return FAILED


# fuse ---------------------------------------------------------------------------------


def _fuse(args: argparse.Namespace) -> int:
    started = time.perf_counter()
    jobs, failures = find_jobs(args.inputs, as_one_stack=args.as_one_stack)
    targets = _targets(jobs, args.out)
    options = _fuse_options(args)
    reports: list[dict[str, Any]] = []
    for inputs, text in failures:
        _say_error(f"{inputs}: {text}")
        reports.append({"ok": False, "inputs": [inputs], "error": text})

    interrupted = ""
    with _stop_on_interrupt() as stop:
        for job, target in zip(jobs, targets, strict=True):
            try:
                report = _fuse_one(job, target, options, stop, overwrite=args.overwrite)
            except Cancelled:
                interrupted = "interrupted"
                if target.suffix.lower() == ZARR_SUFFIX:
                    interrupted += "; the same command goes on from there"
                break
            except Exception as error:
                if args.debug:
                    raise
                text = _in_one_line(error)
                _say_error(f"{job.name}: {text}")
                report = {"ok": False, "inputs": _texts(job.files), "error": text}
            reports.append(report)
            if report["ok"] and not args.json:
                print(_line_of(report), flush=True)

    seconds = time.perf_counter() - started
    good = sum(report["ok"] for report in reports)
    failed = len(reports) - good
    left = len(jobs) + len(failures) - len(reports)
    if args.json:
        summary = {
            "results": reports,
            "fused": good,
            "failed": failed,
            "not_started": left,
            "seconds": round(seconds, 3),
        }
        print(json.dumps(summary, indent=2, default=str))
    else:
        print(_summary(good, failed, left, seconds))
    if interrupted:
        _say_error(interrupted)
        return INTERRUPTED
    return FAILED if failed else OK


def _fuse_one(
    job: Job,
    target: Path,
    options: dict[str, Any],
    stop: threading.Event,
    *,
    overwrite: bool,
) -> dict[str, Any]:
    from napari_focus_fusion import as_stack, fuse
    from napari_focus_fusion.result import result_files
    from napari_focus_fusion.write.saving import check_targets

    started = time.perf_counter()
    stack = as_stack(job.source, axes=options.get("axes"))
    # Said before the work, not after it.
    target.parent.mkdir(parents=True, exist_ok=True)
    files = result_files(target, options.get("scale", 1))
    check_targets(files, overwrite=overwrite, source=stack.source)
    rest = {name: value for name, value in options.items() if name != "axes"}
    if target.suffix.lower() == ZARR_SUFFIX:
        # Written tile by tile: neither the result nor an interruption costs much.
        rest |= {"out": target, "overwrite": overwrite}
    with _Bar(job.name) as bar:
        result = fuse(stack, progress=bar, should_stop=stop.is_set, **rest)
    for note in result.provenance["notes"]:
        print(f"{job.name}: {note}", file=sys.stderr)
    if "out" in rest:
        outputs = [target]
    else:
        outputs = result.save(target, overwrite=overwrite)
    return {
        "ok": True,
        "name": job.name,
        "inputs": _texts(job.files),
        "outputs": _texts(outputs),
        "slices": stack.n_slices,
        "axes": stack.fused_axes,
        "shape": list(result.fused.shape),
        "dtype": str(result.fused.dtype),
        "seconds": round(time.perf_counter() - started, 3),
        "provenance": result.provenance,
    }


def _targets(jobs: Sequence[Job], out: str) -> list[Path]:
    """Where each fused image goes; see the help of ``--out``."""
    if "{stem}" in out:
        targets = [Path(out.replace("{stem}", job.name)) for job in jobs]
    elif not out.lower().endswith(WRITABLE):
        if out.lower().endswith(PICTURE_SUFFIXES):
            raise UsageError(f"cannot write {out}: use .ome.tif or .ome.zarr")
        targets = [Path(out) / f"{job.name}_fused.ome.tif" for job in jobs]
    elif len(jobs) > 1:
        raise UsageError(
            f"{len(jobs)} stacks cannot all go to {out}: give a folder, or a name "
            "with {stem} in it"
        )
    else:
        targets = [Path(out)] * len(jobs)
    for number, target in enumerate(targets):
        if not target.name.lower().endswith(WRITABLE):
            raise UsageError(f"cannot write {target}: use .ome.tif or .ome.zarr")
        if target in targets[:number]:
            first = jobs[targets.index(target)]
            raise UsageError(
                f"{_texts(first.files)[0]} and {_texts(jobs[number].files)[0]} would "
                f"both be written to {target}; fuse them in separate calls"
            )
    return targets


def _fuse_options(args: argparse.Namespace) -> dict[str, Any]:
    """Keywords for ``fuse``: those that were given, so that its defaults hold."""
    names = (
        *("axes", "model", "reference", "scale", "decision", "joint", "blend"),
        *("smoothness", "verify", "tile", "device", "memory"),
    )
    given = {name: getattr(args, name, None) for name in names}
    options = {name: value for name, value in given.items() if value is not None}
    if "model" in options:
        from napari_focus_fusion import load_model

        try:
            options["model"] = load_model(options["model"])
        except FocusFusionError as error:
            raise UsageError(str(error)) from None
    return options


def _line_of(report: dict[str, Any]) -> str:
    shape = " x ".join(map(str, report["shape"]))
    return (
        f"{report['name']}: {report['slices']} slices -> {shape} {report['dtype']} "
        f"in {_duration(report['seconds'])}\n"
        + "\n".join(f"  {path}" for path in report["outputs"])
    )


def _summary(good: int, failed: int, left: int, seconds: float) -> str:
    text = f"{good} stack{'s' if good != 1 else ''} fused in {_duration(seconds)}"
    if failed:
        text += f", {failed} failed"
    if left:
        text += f", {left} not done"
    return text


# The other commands -------------------------------------------------------------------


def _models(args: argparse.Namespace) -> int:
    from napari_focus_fusion.models.registry import models

    specs = {name: dataclasses.asdict(spec) for name, spec in models().items()}
    if args.json:
        print(json.dumps(specs, indent=2, default=str))
        return OK
    width = max(map(len, specs), default=0)
    for name, spec in specs.items():
        print(f"{name:<{width}}  {spec['title']}")
        for line in filter(None, (spec["summary"], spec["paper"])):
            print(f"{'':<{width}}  {line}")
    return OK


def _demo(args: argparse.Namespace) -> int:
    from napari_focus_fusion import as_stack, fuse
    from napari_focus_fusion.figure import side_by_side
    from napari_focus_fusion.metrics import psnr
    from napari_focus_fusion.result import result_files
    from napari_focus_fusion.simulation.samples import brightfield_scene
    from napari_focus_fusion.write.saving import check_targets

    folder = Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    target, picture = folder / "pollen_fused.ome.tif", folder / "pollen.png"
    check_targets([*result_files(target), picture], overwrite=args.overwrite)
    scene = brightfield_scene()
    stack = as_stack(
        scene.stack,
        axes=scene.axes,
        scale=scene.scale,
        units=scene.units,
        name="Pollen",
    )
    started = time.perf_counter()
    with _stop_on_interrupt() as stop, _Bar("Pollen") as bar:
        result = fuse(
            stack, progress=bar, should_stop=stop.is_set, **_fuse_options(args)
        )
    seconds = time.perf_counter() - started
    outputs = result.save(target, overwrite=args.overwrite)
    _write_png(picture, side_by_side(result))
    fused, *slices = (
        psnr(image, scene.truth, data_range=255)
        for image in (result.fused, *scene.stack)
    )
    report = {
        "outputs": _texts([*outputs, picture]),
        "seconds": round(seconds, 3),
        "psnr_fused": fused,
        "psnr_best_slice": max(slices),
        "provenance": result.provenance,
    }
    if args.json:
        print(json.dumps(report, indent=2, default=str))
        return OK
    shape = f"{stack.n_slices} slices of {stack.height} x {stack.width} pixels, RGB"
    print(
        f"Fused a made-up brightfield stack ({shape}) with "
        f"{result.provenance['model']} in {_duration(seconds)} on "
        f"{result.provenance['device']}.\n"
        f"Likeness to the truth, which is known here: {fused:.1f} dB PSNR; the best "
        f"single slice has {max(slices):.1f} dB.\n"
        f"Slices, result and decision map side by side: {picture}\n"
        "The fused image and its maps:"
    )
    for path in outputs:
        print(f"  {path}")
    return OK


def _write_png(path: Path, pixels: NDArray[Any]) -> None:
    from PIL import Image

    Image.fromarray(pixels).save(path)


def _evaluate(args: argparse.Namespace) -> int:
    from napari_focus_fusion import as_stack, evaluate

    def planes(*paths: str) -> list[NDArray[Any]]:
        """Slices (Z, Y, X) or (Z, Y, X, 3), one array a time point and channel."""
        stack = as_stack(paths[0] if len(paths) == 1 else list(paths))
        return list(_by_channel(stack))

    fused, sources = planes(args.fused), planes(*args.sources)
    truths = planes(args.truth) if args.truth else [None] * len(fused)
    if not len(fused) == len(sources) == len(truths):
        raise FocusFusionError(
            f"{args.fused} has {len(fused)} channels and time points, the slices have "
            f"{len(sources)}" + (f", {args.truth} has {len(truths)}" * bool(args.truth))
        )
    results = [
        evaluate(
            image[0],
            slices,
            None if truth is None else truth[0],
            data_range=args.data_range,
            measures=args.measures,
        )
        for image, slices, truth in zip(fused, sources, truths, strict=True)
    ]
    if args.json:
        print(json.dumps({"fused": args.fused, "results": results}, indent=2))
        return OK
    for name in results[0]:
        print(f"{name:<10}", *(f"{measured[name]:>9.4f}" for measured in results))
    return OK


def _report(args: argparse.Namespace) -> int:
    from napari_focus_fusion import as_stack
    from napari_focus_fusion.report import load_result, report

    paths = args.sources
    stack = as_stack(paths[0] if len(paths) == 1 else list(paths), axes=args.axes)
    loaded = load_result(args.fused, stack)
    with _stop_on_interrupt() as stop, _Bar(stack.name) as bar:
        found = report(
            stack, loaded, t=args.time, progress=bar, should_stop=stop.is_set
        )
    if args.csv:
        found.save_csv(args.csv, overwrite=args.overwrite)
    if args.png:
        found.save_png(args.png, overwrite=args.overwrite)
    if args.json:
        print(json.dumps(dataclasses.asdict(found), indent=2, default=str))
    else:
        print(found.text())
    return OK


def _by_channel(stack: FocusStack) -> Iterator[NDArray[Any]]:
    for t in range(stack.n_times):
        block = stack.read(t, slice(None), slice(None), slice(None))
        for channel in range(stack.n_channels):
            first = channel * stack.n_samples
            if stack.n_samples == 1:
                yield block[first]
            else:
                yield block[first : first + 3].transpose(1, 2, 3, 0)


def _train(args: argparse.Namespace) -> int:
    from napari_focus_fusion.models.registry import trainable_models
    from napari_focus_fusion.progress import Meter
    from napari_focus_fusion.training.recipe import recipe_of
    from napari_focus_fusion.training.train import train

    known = trainable_models()
    if args.name not in known:
        raise UsageError(
            f"{args.name!r} cannot be trained; there is: {', '.join(known)}"
        )
    out = Path(args.out or f"{args.name}.safetensors")
    started = time.perf_counter()
    with _stop_on_interrupt() as stop, _Bar(args.name) as bar:

        def on_scene(done: int, total: int) -> None:
            Meter(total, bar).enter(f"scene {done} of {total}", done)

        steps = args.steps or recipe_of(known[args.name]).steps
        try:
            card = train(
                args.name,
                out,
                pictures=args.pictures,
                steps=args.steps,
                seed=args.seed,
                scale=args.scale,
                device=args.device,
                overwrite=args.overwrite,
                on_step=_teller_of_steps(args.name, steps, bar),
                on_scene=on_scene,
                should_stop=stop.is_set,
            )
        except Cancelled:
            _say_error("interrupted; the same command goes on where it last looked")
            return INTERRUPTED
    if args.json:
        print(json.dumps(card, indent=2, default=str))
        return OK
    scores = card["validation"]
    print(
        f"Trained {args.name} in {_duration(time.perf_counter() - started)}. "
        f"Error on the scenes that chose the checkpoint: {scores['trained']:.3f} "
        f"(untrained {scores['untrained']:.3f}; lower is better).\n"
        f"Weights: {out}\nCard: {out.with_suffix('.json')}\n"
        f"History: {out.with_suffix('.csv')}"
    )
    return OK


def _finetune(args: argparse.Namespace) -> int:
    from napari_focus_fusion.training.finetune import finetune

    jobs, failures = find_jobs(args.inputs, as_one_stack=args.as_one_stack)
    for inputs, text in failures:
        _say_error(f"{inputs}: {text}")
    if failures:
        return FAILED
    title = args.name or Path(args.out).stem
    names = "name out axes reference steps lr patch holdout seed device".split()
    given = {name: getattr(args, name) for name in names}
    options = {name: value for name, value in given.items() if value is not None}
    with _stop_on_interrupt() as stop, _Bar(title) as bar, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The tuned model is NOT better")
        result = finetune(
            args.model,
            [job.source for job in jobs],
            on_step=_teller_of_steps(title, args.steps, bar),
            should_stop=stop.is_set,
            **options,
        )
    if args.json:
        path = None if result.path is None else str(result.path)
        print(json.dumps({"path": path, **result.card}, indent=2, default=str))
    else:
        for name, before in result.before.items():
            after = result.after.get(name)
            text = "" if after is None else f"{after:>10.4f}"
            print(f"{name:<10}{before:>10.4f}{text}")
        print(result.verdict)
        if result.path is not None:
            print(f"Use it with --model {args.name or result.path}")
    if result.stopped == "asked":
        _say_error("interrupted; the same command goes on where it was")
        return INTERRUPTED
    return OK if result.better else FAILED


def _teller_of_steps(
    title: str, total: int, bar: _Bar
) -> Callable[[dict[str, float]], None]:
    """Say how far a training is, on a bar or, without a terminal, now and then."""
    from napari_focus_fusion.progress import Meter

    steps = Meter(total, bar)

    def tell(row: dict[str, float]) -> None:
        held_back = row.get("held_back")
        known = "" if held_back is None else f", held back {held_back:.4f}"
        text = f"step {row['step']:.0f}{known}"
        steps.enter(text, row["step"])
        steps.add(1)
        if known and not sys.stderr.isatty():
            print(f"{title}: {text}", file=sys.stderr, flush=True)

    return tell


def _benchmark(args: argparse.Namespace) -> int:
    from napari_focus_fusion.benchmark.report import summaries, write_report
    from napari_focus_fusion.benchmark.run import run_benchmark
    from napari_focus_fusion.write.saving import check_targets

    out = Path(args.out)
    names = ("benchmark.md", "benchmark.csv", "benchmark.json")
    out.mkdir(parents=True, exist_ok=True)
    check_targets([out / name for name in names], overwrite=args.overwrite)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    table = run_benchmark(
        args.models,
        args.data,
        peers=args.peers,
        untrained=args.untrained,
        measures=args.measures,
        limit=args.limit,
        sheets=args.sheets,
        smoothness=args.smoothness,
        seed=args.seed,
        device=args.device,
        say=say,
    )
    typed = shlex.join(["napari-focus-fusion", "benchmark", *_typed_options(args)])
    outputs = write_report(table, out, typed)
    rows = summaries(table)
    if args.json:
        print(json.dumps({"outputs": _texts(outputs), "rows": rows}, indent=2))
    else:
        print("\n".join(_texts(outputs)))
    failed = [row for row in rows if row["scope"] == "all" and "failed" in row["note"]]
    for row in failed:
        _say_error(f"{row['data']}: {row['candidate']} {row['note']}")
    return FAILED if failed else OK


def _typed_options(args: argparse.Namespace) -> Iterator[str]:
    """The options of `_benchmark` that decide its table, as they are typed."""
    for name in ("models", "data", "measures"):
        if value := getattr(args, name):
            yield from (f"--{name}", ",".join(value))
    for name in ("peers", "untrained"):
        if getattr(args, name):
            yield f"--{name}"
    for name in ("limit", "smoothness", "seed", "device"):
        if (value := getattr(args, name)) not in (None, "auto"):
            yield from (f"--{name}", str(value))


# Talking to the person ----------------------------------------------------------------


class _Bar:
    """A progress callback that draws a bar, where there is a terminal to draw on."""

    def __init__(self, title: str) -> None:
        self._title = title

    def __enter__(self) -> _Bar:
        from tqdm import tqdm

        # tqdm's own estimate counts the first, slow tiles as much as the others.
        self._bar = tqdm(
            desc=self._title,
            bar_format="{percentage:3.0f}%|{bar:30}| {desc}",
            disable=not sys.stderr.isatty(),
            leave=False,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def __call__(self, progress: Progress) -> None:
        left = progress.seconds_left
        known = "" if left is None else f", {_duration(left)} left"
        self._bar.total = progress.total
        self._bar.n = progress.done
        self._bar.set_description_str(f"{self._title}: {progress.stage}{known}")


@contextlib.contextmanager
def _stop_on_interrupt() -> Iterator[threading.Event]:
    """Turn Ctrl-C into a flag that the run polls; a second Ctrl-C ends it at once."""
    stop = threading.Event()

    def ask(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, previous)
        stop.set()
        # Not through sys.stderr, which may be in the middle of writing the bar.
        os.write(2, b"\nstopping; press Ctrl-C again to stop at once\n")

    previous = signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, previous)


def _say_error(text: str) -> None:
    print(f"napari-focus-fusion: error: {text}", file=sys.stderr)


def _in_one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, FocusFusionError):
        return text
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return f"{type(error).__name__}: {text} (--debug shows where)"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def _texts(paths: Iterable[Path]) -> list[str]:
    return [str(path) for path in paths]


# Arguments ----------------------------------------------------------------------------


def _memory(text: str) -> int:
    """Bytes from ``2GB``, ``512 MB`` or a plain number."""
    match = re.fullmatch(r"([\d.]+)\s*([kmgt]?)i?b?", text.strip().lower())
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no amount of memory, like 2GB")
    return int(float(match[1]) * 1024 ** " kmgt".index(match[2] or " "))


def _names(text: str) -> list[str]:
    """Names separated by commas, or one path that has commas in it."""
    return [text] if Path(text).exists() else [name for name in text.split(",") if name]


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


def _channel(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="napari-focus-fusion",
        description="Fuse microscopy focus stacks into all-in-focus images.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--debug", action="store_true", help="show where an error came from"
    )
    machine = argparse.ArgumentParser(add_help=False)
    machine.add_argument("--json", action="store_true", help="print JSON, for scripts")

    def command(
        name: str,
        run: Callable[[argparse.Namespace], int],
        text: str,
        parents: Sequence[argparse.ArgumentParser] = (common, machine),
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            parents=list(parents),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(run=run)
        return sub

    sub = command("fuse", _fuse, "fuse one or many focus stacks")
    sub.epilog = _FUSE_EPILOG
    sub.add_argument(
        "inputs",
        nargs="+",
        metavar="IN",
        help="stack files (TIFF, OME-TIFF, OME-Zarr), folders, or glob patterns",
    )
    sub.add_argument(
        "-o",
        "--out",
        required=True,
        help="a folder (files are named NAME_fused.ome.tif), one file (.ome.tif or "
        ".ome.zarr), or a name with {stem} in it",
    )
    sub.add_argument(
        "--as-one-stack",
        action="store_true",
        help="all inputs are slices of one stack, in the order given",
    )
    sub.add_argument("--overwrite", action="store_true", help="replace what exists")
    _add_fuse_options(sub)
    sub.add_argument("--axes", help="what the dimensions are, like ZYX or TZCYX")
    sub.add_argument(
        "--reference",
        type=_channel,
        help="the channel that decides what is sharp: its number from 0, its name, "
        "luminance (RGB), or mean",
    )
    sub.add_argument(
        "--scale",
        type=int,
        choices=(1, 2, 3, 4),
        help="enlarge by super-resolution, with a model that offers it",
    )
    sub.add_argument(
        "--decision",
        metavar="MODEL",
        help="with --scale: another model that decides what is sharp",
    )
    sub.add_argument(
        "--two-step",
        dest="joint",
        action="store_const",
        const=False,
        help="with --scale: fuse first, then enlarge the fused image",
    )
    sub.add_argument(
        "--blend",
        choices=("feather", "select"),
        help="feather: soft at the borders between slices; select: every pixel as "
        "it was observed",
    )
    sub.add_argument(
        "--smoothness",
        type=float,
        help="0 for the finest detail, 1 for most stacks, up to 10 where refraction "
        "makes things look sharp out of focus",
    )
    sub.add_argument(
        "--no-verify",
        dest="verify",
        action="store_const",
        const=False,
        help="leave islands and unsure pixels of the decision map as they are",
    )

    sub = command("demo", _demo, "fuse a built-in stack and show the result")
    sub.add_argument(
        "-o", "--out", default="demo", metavar="FOLDER", help="by default: demo"
    )
    sub.add_argument("--overwrite", action="store_true", help="replace what exists")
    _add_fuse_options(sub)

    sub = command("models", _models, "list the models that are installed")

    sub = command("train", _train, "train a model of ours again, from nothing")
    sub.add_argument("name", metavar="NAME", help="which model, like sesf")
    sub.add_argument(
        "-o", "--out", metavar="FILE", help="by default NAME.safetensors, here"
    )
    sub.add_argument(
        "--pictures",
        type=Path,
        metavar="FOLDER",
        help="sharp pictures that half of the scenes take their textures from",
    )
    sub.add_argument("--steps", type=int, help="instead of the recipe's")
    sub.add_argument(
        "--scale",
        type=int,
        choices=(2, 3, 4),
        help="of a model that super-resolves, train this factor alone",
    )
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    sub.add_argument("--overwrite", action="store_true", help="replace what exists")

    sub = command("finetune", _finetune, "tune a model on your own stacks")
    sub.epilog = _FINETUNE_EPILOG
    sub.add_argument("model", metavar="MODEL", help="which model, like sesf")
    sub.add_argument(
        "inputs", nargs="+", metavar="IN", help="stacks, as the command fuse takes them"
    )
    target = sub.add_mutually_exclusive_group(required=True)
    target.add_argument("--name", help="what to call the tuned model")
    target.add_argument(
        "-o", "--out", metavar="FILE", help="a .safetensors file to keep it in instead"
    )
    sub.add_argument(
        "--as-one-stack",
        action="store_true",
        help="all inputs are slices of one stack, in the order given",
    )
    sub.add_argument("--axes", help="what the dimensions are, like ZYX or TZCYX")
    sub.add_argument(
        "--reference",
        type=_channel,
        help="the channel that decides what is sharp, as for fuse",
    )
    sub.add_argument("--steps", type=int, default=300, help="by default 300")
    sub.add_argument("--lr", type=float, help="learning rate")
    sub.add_argument("--patch", type=int, metavar="PIXELS", help="by default 64")
    sub.add_argument(
        "--holdout", type=float, metavar="SHARE", help="held back, by default 0.2"
    )
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")

    sub = command("evaluate", _evaluate, "measure a fused image")
    sub.add_argument("fused", metavar="FUSED", help="the fused image")
    sub.add_argument(
        "sources", nargs="+", metavar="SOURCE", help="the stack, or its slices as files"
    )
    sub.add_argument("--truth", help="the true all-in-focus image, where it is known")
    sub.add_argument(
        "--measures",
        type=lambda text: text.split(","),
        metavar="NAME,...",
        help="which measures, like Q_G,PSNR; all by default",
    )
    sub.add_argument(
        "--data-range",
        type=float,
        metavar="MAX",
        help="the value that is white, like 255; by default that of 8-bit data, else "
        "the brightest in the slices",
    )

    sub = command("report", _report, "judge a fusion, in numbers and words")
    sub.add_argument("fused", metavar="FUSED", help="what the command fuse wrote")
    sub.add_argument(
        "sources", nargs="+", metavar="SOURCE", help="the stack, or its slices as files"
    )
    sub.add_argument("--axes", help="what the dimensions are, like ZYX or TZCYX")
    sub.add_argument(
        "--time", type=int, default=0, metavar="T", help="time point, from 0"
    )
    sub.add_argument("--csv", metavar="FILE", help="write all numbers there")
    sub.add_argument("--png", metavar="FILE", help="write histogram and text there")
    sub.add_argument("--overwrite", action="store_true", help="replace what exists")

    sub = command("benchmark", _benchmark, "compare models, measured on data sets")
    sub.epilog = _BENCHMARK_EPILOG
    sub.add_argument(
        "--models",
        type=_names,
        default=["sml"],
        metavar="NAME,...",
        help="names of the command models (sesf:untrained is sesf with random "
        "weights; affinity-sr:two-step fuses first and enlarges then; affinity-sr:sesf "
        "takes the decision of sesf), files of weights, or other programs, like "
        "enfuse; by default sml",
    )
    sub.add_argument(
        "--data",
        type=_names,
        default=["scenes"],
        metavar="NAME,...",
        help="scenes (by default), scenes-noise, scenes-light, scenes-refractile, "
        "scenes-x2 to -x4, lytro, lytro-x2 to -x4, triples, or files and folders of "
        "yours",
    )
    sub.add_argument(
        "--peers", action="store_true", help="also other programs that are installed"
    )
    sub.add_argument(
        "--untrained",
        action="store_true",
        help="also every model with the random weights it had before training",
    )
    sub.add_argument(
        "--measures",
        type=_names,
        metavar="NAME,...",
        help="which measures, like Q_G,PSNR; by default those of the data set",
    )
    sub.add_argument(
        "--limit", type=_positive, metavar="K", help="only the first K stacks of each"
    )
    sub.add_argument(
        "--sheets",
        type=int,
        default=1,
        metavar="K",
        help="contact sheets for each data set, by default 1",
    )
    sub.add_argument(
        "--smoothness", type=float, help="that of fuse, instead of its default"
    )
    sub.add_argument("--seed", type=int, default=0, help="of the random weights")
    sub.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    sub.add_argument(
        "-o", "--out", required=True, metavar="FOLDER", help="where the tables go"
    )
    sub.add_argument("--overwrite", action="store_true", help="replace what exists")
    return parser


def _add_fuse_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--model", help="a name of the command models, or weights")
    sub.add_argument("--device", help="auto, cpu, cuda, cuda:1 or mps")
    sub.add_argument("--tile", type=int, metavar="PIXELS", help="size of a tile")
    sub.add_argument("--memory", type=_memory, help="working memory, like 2GB")


_FUSE_EPILOG = """\
A file with a Z axis is a stack. Single pictures are slices; those of one folder make
one stack, in the order of their names. Examples:

  napari-focus-fusion fuse stack.tif -o fused.ome.tif
  napari-focus-fusion fuse 'plate/*.ome.tif' -o results --model sml
  napari-focus-fusion fuse pictures/ -o fused.ome.zarr
  napari-focus-fusion fuse '*.tif' -o 'results/{stem}.ome.zarr' --json
"""

_FINETUNE_EPILOG = """\
No labels are needed. A part of the stacks is held back, and what is not better on it
than the model was before is not kept; the exit code is then 1. Examples:

  napari-focus-fusion finetune sesf pollen.ome.tif --name pollen
  napari-focus-fusion fuse pollen.ome.tif --model pollen -o fused.ome.tif
"""

_BENCHMARK_EPILOG = """\
Every candidate fuses every stack in a process of its own, so that time and memory are
its own; what comes out is measured against the truth or against the slices, and written
as benchmark.md, .csv and .json, with contact sheets. What fails is noted in the table.
The public pictures (lytro, triples) are looked for in the folder that the environment
variable FOCUS_FUSION_DATA names. Examples:

  napari-focus-fusion benchmark -o results
  napari-focus-fusion benchmark --models sml,my.safetensors --data my_stacks -o results
  napari-focus-fusion benchmark --data scenes,lytro --peers --untrained -o results
"""
