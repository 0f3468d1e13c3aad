"""OME-TIFF data sets of one plane a file, and stack files of Micro-Manager."""

from __future__ import annotations

import json
import struct
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

if TYPE_CHECKING:
    from pathlib import Path

_OME = (
    '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/'
    'Schemas/OME/2016-06"{uuid}>{body}</OME>'
)
_IMAGE = (
    '<Image ID="Image:0" Name="cells"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" '
    'Type="uint16" SizeX="{w}" SizeY="{h}" SizeZ="{z}" SizeC="{c}" SizeT="{t}" '
    'PhysicalSizeX="0.1" PhysicalSizeY="0.1" PhysicalSizeZ="0.5">{channels}{data}'
    "</Pixels></Image>"
)


def planes(t: int, c: int, z: int) -> np.ndarray:
    """Noise, (T, C, Z, 24, 32), without a zero."""
    rng = np.random.default_rng(5)
    return rng.integers(1, 2**16, (t, c, z, 24, 32), np.uint16)


def uuid_of(index: int) -> str:
    return f"urn:uuid:{index:08d}-0000-4000-8000-000000000000"


def image_xml(pixels: np.ndarray, names: list[str] | None) -> str:
    """``Image`` of the OME-XML; `names` are files of one plane each, or None."""
    t, c, z, h, w = pixels.shape
    data = ""
    for index, (time, channel, plane) in enumerate(np.ndindex(t, c, z)):
        first = f'FirstT="{time}" FirstC="{channel}" FirstZ="{plane}"'
        ifd, inside = f'IFD="{index}"', ""
        if names is not None:
            ifd = 'IFD="0"'
            inside = f'<UUID FileName="{names[index]}">{uuid_of(index)}</UUID>'
        data += f'<TiffData {first} {ifd} PlaneCount="1">{inside}</TiffData>'
    channels = "".join(
        f'<Channel ID="Channel:0:{i}" Name="ch{i}" SamplesPerPixel="1"/>'
        for i in range(c)
    )
    return _IMAGE.format(t=t, c=c, z=z, h=h, w=w, channels=channels, data=data)


def ome(body: str, uuid: str = "") -> str:
    return _OME.format(uuid=f' UUID="{uuid}"' if uuid else "", body=body)


def write_set(
    folder: Path, pixels: np.ndarray, *, kind: str = "each", stem: str = "p"
) -> list[Path]:
    """Write each plane to a file of its own.

    `kind` says where the metadata are: in ``"each"`` file, in the first one
    (``"master"``), or in a ``"companion"``.
    """
    t, c, z = pixels.shape[:3]
    flat = pixels.reshape(-1, *pixels.shape[3:])
    places = list(np.ndindex(t, c, z))
    names = [f"{stem}_T{i}_C{j}_Z{k:02d}.ome.tif" for i, j, k in places]
    whole = image_xml(pixels, names)
    where = names[0] if kind == "master" else f"{stem}.companion.ome"
    for index, (name, plane) in enumerate(zip(names, flat, strict=True)):
        body = whole
        if kind == "companion" or (kind == "master" and index):
            body = f'<BinaryOnly MetadataFile="{where}" UUID="{uuid_of(0)}"/>'
        tifffile.imwrite(
            folder / name,
            plane,
            metadata=None,
            photometric="minisblack",
            description=ome(body, uuid_of(index)),
        )
    if kind == "companion":
        (folder / where).write_text(ome(whole, uuid_of(999)))
    return [folder / name for name in names]


def write_mmstack(path: Path, pixels: np.ndarray, **first: int) -> None:
    """Write (T, P, Z, Y, X) uint16 as Micro-Manager's stack file.

    `first` is the first time point (``t``) in the file, and how many were ``planned``.
    """
    t0 = first.get("t", 0)
    times, positions, slices, h, w = pixels.shape
    summary: dict[str, Any] = {
        "MicroManagerVersion": "1.4",
        "Prefix": "x",
        "Channels": 1,
        "Slices": slices,
        "Frames": first.get("planned", times),
        "Positions": positions,
        "SlicesFirst": True,
        "TimeFirst": False,
    }
    text = json.dumps(summary).encode()
    text += b" " * (len(text) % 2)
    out = bytearray(b"II*\0" + struct.pack("<I", 40 + len(text)) + b"\0" * 24)
    out += struct.pack("<II", 2355492, len(text)) + text
    offsets = []
    flat = pixels.reshape(-1, h, w)
    for number, plane in enumerate(flat, start=1):
        offsets.append(len(out))
        data = len(out) + 162
        after = data + plane.nbytes
        about = b'{"Width": 1}' + b"\0" * 2
        tags = [
            *((256, 4, 1, w), (257, 4, 1, h), (258, 3, 1, 16), (259, 3, 1, 1)),
            *((262, 3, 1, 1), (273, 4, 1, data), (277, 3, 1, 1), (278, 3, 1, h)),
            *((279, 4, 1, plane.nbytes), (282, 5, 1, after), (283, 5, 1, after + 8)),
            *((296, 3, 1, 1), (51123, 2, len(about), after + 16)),
        ]
        following = 0 if number == len(flat) else after + 16 + len(about)
        out += struct.pack("<H", 13) + b"".join(struct.pack("<HHII", *t) for t in tags)
        out += struct.pack("<I", following) + plane.astype("<u2").tobytes()
        out += struct.pack("<IIII", 1, 1, 1, 1) + about
    struct.pack_into("<II", out, 8, 54773648, len(out))
    out += struct.pack("<II", 3453623, len(flat))
    places = product(range(times), range(positions), range(slices))
    for (t, p, z), offset in zip(places, offsets, strict=True):
        out += struct.pack("<5I", 0, z, t + t0, p, offset)
    path.write_bytes(out)
