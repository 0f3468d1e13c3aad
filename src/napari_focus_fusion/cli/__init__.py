"""The command line: ``napari-focus-fusion COMMAND``, see ``--help``.

Exit codes: 0 all went well, 1 something failed, 2 the command line was not valid, 130
interrupted. Results go to standard output, progress and errors to standard error.

Each command is a module that imports what is heavy only when it runs: help and wrong
options are answered at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from napari_focus_fusion._version import __version__
from napari_focus_fusion.cli import (
    benchmark,
    demo,
    evaluate,
    finetune,
    fuse,
    models,
    project,
    report,
    train,
)
from napari_focus_fusion.cli.console import (
    FAILED,
    INTERRUPTED,
    OK,
    USAGE,
    UsageError,
    error_text,
    print_error,
)
from napari_focus_fusion.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Sequence

#: In the order of the help.
COMMANDS = (fuse, project, demo, models, train, finetune, evaluate, report, benchmark)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    args = _parser().parse_args(argv)
    # Threads of PyTorch that wait for each other leave the cores to other programs;
    # else a run beside another takes tens of times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = int(args.run(args))
        sys.stdout.flush()
        return code
    except UsageError as error:
        print_error(str(error))
        return USAGE
    except (Cancelled, KeyboardInterrupt):
        print_error("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # the reader, like `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except Exception as error:
        if args.debug:
            raise
        print_error(error_text(error))
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="napari-focus-fusion",
        description="Fuse microscopy focus stacks into all-in-focus images.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(commands)
    return parser
