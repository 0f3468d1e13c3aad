"""What varies in the names of files: slices, channels, time points, separate stacks.

``img_000000000_DAPI_003.tif`` is a slice of a channel; ``A01_s2_z07.tif`` one of a
field of a well. No file is opened here.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from typing import TYPE_CHECKING

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.read.name_columns import (
    ODD_SHARE,
    Token,
    columns_of,
    fields_of,
)
from napari_focus_fusion.read.name_errors import folder_of, odd_name
from napari_focus_fusion.read.name_roles import Roles, assigned, reduced
from napari_focus_fusion.read.name_sets import NamedSet, flat_set, sets_of_roles
from napari_focus_fusion.read.names import natural_key, stem

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["NamedSet", "flat_set", "is_no_slice", "set_by_axes", "sets_by_name"]

_THUMBNAIL = re.compile(r"(^|[^a-z])thumb(nail)?s?([^a-z]|$)", re.IGNORECASE)


def is_no_slice(name: str) -> bool:
    """Whether a file name is that of a hidden file or a thumbnail."""
    return name.startswith(".") or bool(_THUMBNAIL.search(os.path.splitext(name)[0]))


def sets_by_name(
    paths: Sequence[str], *, in_order: bool = False, stacks: bool = False
) -> list[NamedSet]:
    """Sort files into stacks by what varies in their names.

    Parameters
    ----------
    paths
        Files of one plane each.
    in_order
        Whether they are in the order of their slices already: a list that a user gave.
    stacks
        Whether the files hold whole stacks instead: their names can say time points
        and channels, and all else tells stacks apart.

    Returns
    -------
    list of NamedSet
        One a stack; those of positions, wells and unknown words each on their own.

    Raises
    ------
    FocusFusionError
        If a name is the odd one, or it cannot be known what varies.
    """
    files = list(paths) if in_order else sorted(paths, key=natural_key)
    if len(files) == 1:
        return [flat_set(files)]
    names = _names_within(files)
    kinds = _by_suffix(files)
    if len(kinds) > 1:
        return [found for kind in kinds for found in sets_by_name(kind, stacks=stacks)]
    fields = [fields_of(name) for name in names]
    counts = Counter(map(len, fields))
    if len(counts) > 1:
        return _sets_of_templates(files, fields, counts, in_order, stacks)
    columns, odd = columns_of(fields)
    if in_order and not columns:
        return [flat_set(files)]
    if odd:
        raise odd_name(files, odd)
    columns = reduced(columns)
    roles = assigned(columns, files, names, in_order=in_order, stacks=stacks)
    return sets_of_roles(roles, files, in_order)


def set_by_axes(paths: Sequence[str], axes: str, *, in_order: bool) -> NamedSet:
    """Arrange files along axes that the user named.

    Parameters
    ----------
    paths
        Files of one plane each.
    axes
        One letter out of ``TCZ`` for each part of the names that varies, in the order
        of the names; a single letter is for all of them.
    in_order
        As in :func:`sets_by_name`.

    Raises
    ------
    FocusFusionError
        If as many parts do not vary, or files are missing.
    """
    files = list(paths) if in_order else sorted(paths, key=natural_key)
    fields = [fields_of(name) for name in _names_within(files)]
    alike = len(set(map(len, fields))) == 1
    columns = reduced(columns_of(fields)[0]) if alike else []
    if len(axes) == 1:
        if not in_order and len(columns) == 1:
            files = [f for _, f in sorted(zip(columns[0].keys, files, strict=True))]
        return flat_set(files, axes)
    if len(columns) != len(axes):
        raise FocusFusionError(
            f"The axes {axes} were given for the files in {folder_of(files)}, but "
            f"{len(columns)} parts of their names vary. Give one letter for each, in "
            "the order of the name, and then those of a file."
        )
    roles = Roles(dict(zip(axes, columns, strict=True)), [], True)
    (found,) = sets_of_roles(roles, files, in_order)
    return found


def _names_within(files: Sequence[str]) -> list[str]:
    """Names without endings, with the folders in which the files differ."""
    folders = [os.path.dirname(os.path.abspath(file)) for file in files]
    common = os.path.commonpath(folders)
    return [
        os.path.join(os.path.relpath(folder, common), stem(file)).removeprefix("./")
        for folder, file in zip(folders, files, strict=True)
    ]


def _by_suffix(files: Sequence[str]) -> list[list[str]]:
    """Files by their kind, where the same names are there in several kinds."""
    kinds: dict[str, list[str]] = {}
    for file in files:
        suffix = os.path.splitext(file)[1].lower()
        kinds.setdefault({".tiff": ".tif", ".jpeg": ".jpg"}.get(suffix, suffix), [])
        kinds[{".tiff": ".tif", ".jpeg": ".jpg"}.get(suffix, suffix)].append(file)
    stems = [{os.path.splitext(file)[0] for file in kind} for kind in kinds.values()]
    twice = any(one & two for i, one in enumerate(stems) for two in stems[:i])
    return list(kinds.values()) if twice else [list(files)]


def _sets_of_templates(
    files: list[str],
    fields: Sequence[list[list[Token]]],
    counts: Counter[int],
    in_order: bool,
    stacks: bool,
) -> list[NamedSet]:
    """Names of several kinds: a few odd ones are named, else each kind is apart."""
    many, count = counts.most_common(1)[0]
    few = [i for i, found in enumerate(fields) if len(found) != many]
    if in_order:
        return [flat_set(files)]
    if count >= 3 and len(few) <= max(1, ODD_SHARE * len(files)):
        raise odd_name(files, few)
    kinds: dict[int, list[str]] = {}
    for file, found in zip(files, fields, strict=True):
        kinds.setdefault(len(found), []).append(file)
    return [
        found for kind in kinds.values() for found in sets_by_name(kind, stacks=stacks)
    ]
