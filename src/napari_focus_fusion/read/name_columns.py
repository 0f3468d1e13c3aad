"""What varies in the names of files, column by column: words and numbers."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from napari_focus_fusion.read.names import natural_key

if TYPE_CHECKING:
    from collections.abc import Sequence

# What the word before a number says. "place" is a position, field or well: each one is
# a stack of its own.
_LABELS = {
    **dict.fromkeys("z zs zpos zstack slice slices sl plane focus depth".split(), "Z"),
    **dict.fromkeys("c ch chan channel w wv wave wavelength".split(), "C"),
    **dict.fromkeys("t tp time timepoint".split(), "T"),
    **dict.fromkeys(
        "pos position xy site fov fld field series scene well row col tile roi".split(),
        "place",
    ),
}
# Short words that mean a position beside a number for Z, and nothing alone.
_MAYBE_PLACE = frozenset("s p f m v cell sample point region area image view".split())
# Columns of one field as in r01c02f03p04-ch1sk1fk1fl1: row, column, field, plane.
_OPERETTA = {"r": "place", "c": "place", "f": "place", "p": "Z"}
_OPERETTA_CHANNEL = {"ch": "C", "sk": "T", "fk": "T", "fl": "T"}
_CHANNEL_WORD = re.compile(
    r"(w\d+|ch?)?(dapi|hoechst|draq\d*|sytox|fitc|tritc|rhod(amine)?|(e|s|t)?gfp|[er]?rfp|"
    r"(e|s)?[yc]fp|bfp|mcherry|cherry|tomato|tdtomato|texas ?red|txred|cy\d+(\.\d+)?|"
    r"(alexa|af|atto|dylight)\d+|bf|brightfield|bright|trans|tl|td|phase|ph\d?|dic|pol|"
    r"darkfield|df|fluo|red|green|blue|farred|nir|uv|venus|citrine|cerulean|turquoise|"
    r"ruby|dsred|propidium|pi|he)",
    re.IGNORECASE,
)
_DYES = frozenset("cy alexa af atto dylight draq ph".split())
# nm: lasers and LEDs. Numbers of files that count up are not all among them.
_LINES = frozenset(
    "355 365 375 385 395 405 440 445 458 470 473 476 488 505 514 515 532 543 546 555 "
    "561 568 590 594 633 635 637 638 640 642 647 660 685 730 750 785".split()
)
_WELL = re.compile(r"[A-Pa-p]\d{1,2}")
_UNITS = {
    **{"nm": 1e-3, "um": 1.0, "µm": 1.0, "μm": 1.0, "mm": 1e3},
    **{"ms": 1e-3, "s": 1.0, "sec": 1.0, "min": 60.0, "h": 3600.0},
}
_LENGTHS = ("nm", "um", "µm", "μm", "mm")
_TIMES = ("ms", "s", "sec", "min", "h")
_UNIQUE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
# 0001.0002: two counts and no fraction; c1+2: one channel of two exposures.
_TWO_COUNTS = re.compile(r"(?<!\d)(?<!\d\.)(0\d{2,})\.(\d{3,})(?![\d.])")
# 0.5 um: a length; channelGFP: Micro-Manager's GFP.
_LENGTH_APART = re.compile(r"(\d)[ _](nm|um|µm|μm|mm)(?![^\W\d_])")
# Z-position, z step: a label of two words.
_Z_LABEL = re.compile(
    r"(?<![^\W\d_])z[-_ ]?(position|pos|step|plane|slice|level|height|index)"
    r"(?![^\W\d_])",
    re.IGNORECASE,
)
_FRACTION = re.compile(r"(\d*)([¼½¾⅓⅔⅛⅜⅝⅞])")
_CHANNEL_LABEL = re.compile(r"channel(?=[^\W\d_])", re.IGNORECASE)
_TWO_EXPOSURES = re.compile(r"(c\d)\+(\d)", re.IGNORECASE)
_DATE = r"(?:19|20)\d\d[-_.]?[01]\d[-_.]?[0-3]\d"
_MOMENT = re.compile(rf"(?<!\d){_DATE}[-_ T.]?[0-2]\d[-_.h]?[0-5]\d[-_.m]?[0-5]\d")
_TOKEN = re.compile(
    r"(?P<number>[-+]?\d+(?:[.,]\d+)?(?![.,]?\d))|(?P<digits>[-+]?\d+)"
    r"|(?P<word>[^\W\d_]+)|(?P<gap>.)",
    re.DOTALL,
)
#: An odd name is one of a few beside many.
ODD_SHARE = 0.2


class Token(NamedTuple):
    """A word or a number in a name."""

    text: str
    is_number: bool


class Column(NamedTuple):
    """Something that varies in the names."""

    role: str  # Z, C, T, place, maybe place, number, word
    keys: tuple[Any, ...]  # one a file; sorts as it should
    texts: tuple[str, ...]
    length: bool = False  # numbers with a unit of length, in micrometres
    stamp: bool = False


def fields_of(name: str) -> list[list[Token]]:
    """Words and numbers between separators; a sign belongs to its number."""
    name = _UNIQUE.sub("", name)
    name = _MOMENT.sub(lambda match: re.sub(r"\D", "", match[0]), name)
    name = _TWO_COUNTS.sub(r"\1_\2", name)
    name = _TWO_EXPOSURES.sub(r"\1\2", name)
    name = _LENGTH_APART.sub(r"\1\2", name)
    name = _Z_LABEL.sub("z", name)
    name = _FRACTION.sub(_decimal, name)
    fields: list[list[Token]] = [[]]
    for match in _TOKEN.finditer(name):
        if match["gap"]:
            fields.append([])
        else:
            fields[-1].append(Token(match[0], not match["word"]))
    return [found for found in fields if found]


def _decimal(match: re.Match[str]) -> str:
    return f"{int(match[1] or 0) + unicodedata.numeric(match[2]):.6g}"


def _skeleton(found: Sequence[Token]) -> tuple[str, ...]:
    """What names must have in common to differ in their numbers and units alone."""
    texts = ["#" if t.is_number else t.text.casefold() for t in found]
    for place in range(1, len(texts)):
        if texts[place - 1] == "#":  # 500nm beside 1um
            kinds = {**dict.fromkeys(_LENGTHS, "um"), **dict.fromkeys(_TIMES, "s")}
            texts[place] = kinds.get(texts[place], texts[place])
    return tuple(texts)


def columns_of(fields: Sequence[list[list[Token]]]) -> tuple[list[Column], list[int]]:
    """What varies in names of as many fields; which names are odd."""
    columns: list[Column] = []
    before = ""
    for here in zip(*fields, strict=True):
        skeletons = Counter(map(_skeleton, here))
        if len(skeletons) == 1:
            columns += _numbers_of(here, before)
        else:
            odd = _minority(here, skeletons)
            if odd:
                return [], odd
            columns.append(_word(["".join(t.text for t in found) for found in here]))
        last = here[0][-1]
        before = "" if last.is_number or len(skeletons) > 1 else last.text.casefold()
    return [column for column in columns if len(set(column.keys)) > 1], []


def _minority(
    here: Sequence[list[Token]], skeletons: Counter[tuple[str, ...]]
) -> list[int]:
    """Which few are unlike the many that are numbered."""
    many, count = skeletons.most_common(1)[0]
    few = len(here) - count
    numbered = {
        tuple(token.text for token in found)
        for found in here
        if _skeleton(found) == many
    }
    if count < 3 or few > max(1, ODD_SHARE * len(here)) or len(numbered) < count:
        return []
    return [i for i, found in enumerate(here) if _skeleton(found) != many]


def _numbers_of(here: Sequence[list[Token]], before: str) -> list[Column]:
    """Columns of fields that differ in their numbers only."""
    texts = ["".join(token.text for token in found) for found in here]
    if all(map(_WELL.fullmatch, texts)) and not _are_channels(texts):
        keys = [(t[0].upper(), int(t[1:])) for t in texts]
        return [Column("maybe place", tuple(keys), tuple(texts))]
    words = [token.text.casefold() for token in here[0]]
    labels = _labels_of_field(here[0])
    columns = []
    for place, token in enumerate(here[0]):
        if not token.is_number:
            continue
        label = words[place - 1] if place else before
        last = place + 1 == len(words)
        units = ["" if last else found[place + 1].text.casefold() for found in here]
        numbers = [found[place].text for found in here]
        columns.append(_numbers(numbers, label, units, labels.get(label), texts))
    return columns


def _are_channels(texts: Sequence[str]) -> bool:
    """Whether c1, c2 count channels; C01, C02 are wells of a row."""
    padded = all(len(text) == 3 for text in texts)
    return all(t[0] == "c" or (t[0] == "C" and not padded) for t in texts)


def _labels_of_field(found: Sequence[Token]) -> dict[str, str]:
    words = [token.text.casefold() for token in found if not token.is_number]
    for known in (_OPERETTA, _OPERETTA_CHANNEL):
        if words and len(words) > 1 and set(words) <= set(known):
            return known
    return _LABELS


def _numbers(
    numbers: Sequence[str],
    label: str,
    units: Sequence[str],
    role: str | None,
    texts: list[str],
) -> Column:
    if not _are_signed(numbers):
        numbers = [number.lstrip("+-") for number in numbers]
    keys = tuple(
        _UNITS.get(unit, 1.0) * float(number.replace(",", "."))
        for number, unit in zip(numbers, units, strict=True)
    )
    if role is None and set(units) <= set(_TIMES):
        role = "T"  # 10min, 20min
    if label in _DYES or set(numbers) <= _LINES:
        return Column("C", keys, tuple(texts if label in _DYES else numbers))
    maybe = "number"
    length = set(units) <= set(_LENGTHS)
    if label in _MAYBE_PLACE and not length:
        maybe, numbers = "maybe place", [label + number for number in numbers]
    stamp = maybe == "number" and all(len(number) > 11 for number in numbers)
    if len(set(units)) > 1:
        numbers = [number + unit for number, unit in zip(numbers, units, strict=True)]
    return Column(role or maybe, keys, tuple(numbers), length, stamp)


def _are_signed(numbers: Sequence[str]) -> bool:
    """Whether signs differ; a hyphen before all of the numbers is a separator."""
    return len({number[0] if number[0] in "+-" else "" for number in numbers}) > 1


def _word(texts: Sequence[str]) -> Column:
    if all(_WELL.fullmatch(text) for text in texts):
        wells = tuple((text[0].upper(), int(text[1:])) for text in texts)
        return Column("place", wells, tuple(texts))
    if all(map(_CHANNEL_LABEL.match, texts)):
        names = tuple(_CHANNEL_LABEL.sub("", text, count=1) for text in texts)
        return Column("C", tuple(tuple(natural_key(name)) for name in names), names)
    channels = all(_CHANNEL_WORD.fullmatch(text) for text in set(texts))
    numbered = all(re.fullmatch(r"(ch|c|w)\d+.*", text, re.I) for text in set(texts))
    keys = tuple(tuple(natural_key(text)) for text in texts)
    return Column("C" if channels or numbered else "word", keys, tuple(texts))


def text_of(column: Column, key: Any) -> str:
    """How a value of a column stands in the names."""
    return column.texts[column.keys.index(key)]
