"""The tables of the documentation, made again.

``python -m studies.pages scenes`` writes ``scenes.md`` and its contact sheets into
``docs/benchmarks``; other pages are the other rows of `PAGES`.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from napari_focus_fusion.benchmark.report import write_report
from napari_focus_fusion.benchmark.run import run_benchmark

_NETWORKS = ("sesf", "residual", "dual-path", "mscnn")
_UNTRAINED = tuple(f"{name}:untrained" for name in _NETWORKS)


@dataclass(frozen=True)
class Page:
    """What a page compares.

    Attributes
    ----------
    title
        Of the page.
    models, data
        As for `run_benchmark`.
    peers
        Whether all other programs that are installed take part.
    sheets
        Contact sheets a data set.
    measures
        None for those of the data set.
    """

    title: str
    models: tuple[str, ...]
    data: tuple[str, ...]
    peers: bool = False
    sheets: int = 1
    measures: tuple[str, ...] | None = None


_ALL = ("sml", "residual-zero", *_NETWORKS, *_UNTRAINED)

PAGES = {
    "scenes": Page("scenes", _ALL, ("scenes", "scenes-light"), peers=True),
    "refractile": Page(
        "refractile cells",
        (*_ALL, "dual-path-brightfield"),
        ("scenes-refractile",),
        peers=True,
    ),
    # Without Q_P, which would take four times as long as all the others.
    "lytro": Page(
        "Lytro",
        (*_ALL, "opencv-pyramid", "enfuse"),
        ("lytro", "triples"),
        sheets=0,
        measures=("Q_MI", "Q_NCIE", "Q_G", "Q_S", "Q_Y", "Q_AB/F"),
    ),
    "enlarged": Page(
        "Lytro pairs, reduced and enlarged again",
        ("sesf", "affinity-sr", "affinity-sr:two-step", "affinity-sr:sesf"),
        tuple(f"{data}-x{s}" for data in ("lytro", "scenes") for s in (2, 3, 4)),
        sheets=0,
    ),
}


def make_page(name: str, folder: Path) -> list[Path]:
    """Run the benchmark of a page and write it.

    Parameters
    ----------
    name
        Key of `PAGES`.
    folder
        Where ``NAME.md`` and its contact sheets go.

    Returns
    -------
    list of Path
        What was written, the page first.
    """
    page = PAGES[name]
    table = run_benchmark(
        page.models,
        page.data,
        peers=page.peers,
        sheets=page.sheets,
        measures=page.measures,
        log=lambda text: print(text, file=sys.stderr, flush=True),
    )
    options = ["--models", ",".join(page.models), "--data", ",".join(page.data)]
    options += ["--peers"] * page.peers
    options += ["--measures", ",".join(page.measures)] if page.measures else []
    typed = shlex.join(["napari-focus-fusion", "benchmark", *options])
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="focus-fusion-") as place:
        markdown, _, _, *sheets = write_report(table, Path(place), typed)
        text = markdown.read_text(encoding="utf-8")
        text = text.replace("# Benchmark", f"# Benchmark: {page.title}", 1)
        written = [folder / f"{name}.md"]
        written[0].write_text(text, encoding="utf-8")
        for sheet in sheets:
            written.append(folder / sheet.name)
            shutil.copy(sheet, written[-1])
    return written


def main() -> None:
    """Make the pages that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=PAGES, metavar="NAME")
    parser.add_argument("-o", "--out", type=Path, default=Path("docs/benchmarks"))
    given = parser.parse_args()
    for name in given.names:
        print("\n".join(str(path) for path in make_page(name, given.out)))


if __name__ == "__main__":
    main()
