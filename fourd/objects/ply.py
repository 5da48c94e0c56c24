"""3D Gaussians as .ply files, in the layout that Kerbl et al. published and that splat viewers read.

One element `vertex` with x, y, z, nx, ny, nz (unused), f_dc_0..2, f_rest_0.. (bands 1 up, all of red first), opacity
(before the sigmoid), scale_0..2 (logarithms) and rot_0..3 (w first). Coordinates stay as they are in the file.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from fourd.files import written_beside
from fourd.gaussians import Gaussians
from fourd.objects.errors import ObjectError, Reason

MAX_GAUSSIANS = 20_000_000
MAX_HEADER_BYTES = 64 * 1024
_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": ""}
_MEANS, _DC = ("x", "y", "z"), ("f_dc_0", "f_dc_1", "f_dc_2")
_SCALES, _QUATS = ("scale_0", "scale_1", "scale_2"), ("rot_0", "rot_1", "rot_2", "rot_3")
_NUMS_REST = (0, 9, 24, 45)
"""Fields f_rest_* of degree 0 to 3."""


def read_ply(path: Path) -> Gaussians:
    """Gaussians of a .ply file: binary of either byte order or text, fields in any order and of any number type.

    Raises:
        ObjectError: `not_found`, `malformed`, `unsupported` (a mesh, a compressed file), `too_large` or
            `non_finite`; said before memory is taken for what the header claims.
    """
    try:
        with path.open("rb") as file:
            layout = _header(path, file)
            columns = _ascii(path, file, layout) if layout.order == "" else _binary(path, file, layout)
    except OSError as error:
        raise ObjectError(path, "not_found", f"cannot be read ({error.strerror})") from error
    names = sorted((name for name in layout.fields if name.startswith("f_rest_")), key=lambda name: int(name[7:]))
    quats = columns(_QUATS)
    if not bool(quats.any(dim=1).all()):
        raise ObjectError(path, "malformed", "has rotations of length zero; write the file anew from its source")
    # The file has all of red, then all of green, then all of blue.
    rest = columns(names).unflatten(1, (3, -1)).mT if names else torch.zeros(layout.count, 0, 3)
    return Gaussians(
        means=columns(_MEANS),
        quats=quats,
        log_scales=columns(_SCALES),
        opacity_logits=columns(("opacity",))[:, 0].clone(),
        sh=torch.cat([columns(_DC)[:, None], rest], dim=1),
    )


def write_ply(gaussians: Gaussians, path: Path) -> None:
    """Write Gaussians as published: binary, little-endian, float32. The file appears whole or not at all."""
    sh = gaussians.sh.detach().cpu()
    rest = sh[:, 1:].mT.flatten(1)
    names = [
        *_MEANS, "nx", "ny", "nz", *_DC, *(f"f_rest_{index}" for index in range(rest.shape[1])), "opacity",
        *_SCALES, *_QUATS,
    ]  # fmt: skip
    means, quats, scales, opacities = (
        value.detach().cpu()
        for value in (gaussians.means, gaussians.quats, gaussians.log_scales, gaussians.opacity_logits)
    )
    rows = torch.cat([means, torch.zeros_like(means), sh[:, 0], rest, opacities[:, None], scales, quats], dim=1)
    fields = "".join(f"property float {name}\n" for name in names)
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(rows)}\n{fields}end_header\n"
    with written_beside(path) as aside, aside.open("wb") as file:
        file.write(header.encode("ascii"))
        file.write(rows.numpy().astype("<f4").tobytes())


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """What a header says."""

    order: str
    """`<` or `>`, or nothing for text."""
    count: int
    fields: dict[str, str]
    """numpy's type of each field, in the file's order."""


class _Columns:
    """Fields of the file as tensors."""

    def __init__(self, path: Path, columns: dict[str, np.ndarray]) -> None:
        self._path, self._columns = path, columns

    def __call__(self, names: tuple[str, ...] | list[str]) -> Tensor:
        """Shape (count, len(names)), float32."""
        with np.errstate(over="ignore"):  # what leaves float32 is found below
            values = np.stack([self._columns[name].astype(np.float32) for name in names], axis=1)
        bad = ~np.isfinite(values)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise ObjectError(
                self._path,
                "non_finite",
                f"has {int(bad.any(axis=1).sum())} Gaussians that are not finite (first {row}, {names[column]}); "
                "remove them in a splat editor, or write the file anew from its source",
            )
        return torch.from_numpy(values)


def _header(path: Path, file: IO[bytes]) -> _Layout:
    """Read the header; the file stands at the first byte after it."""
    head = file.read(MAX_HEADER_BYTES)
    found = re.search(rb"\nend_header[ \t]*\r?\n", head)
    if not re.match(rb"ply[ \t]*\r?\n", head) or found is None:
        raise ObjectError(path, "malformed", "is not a .ply file: its header does not begin and end as it should")
    file.seek(found.end())
    lines = [line.split() for line in head[: found.start()].decode("ascii", "replace").splitlines()[1:]]
    lines = [words for words in lines if words and words[0] not in ("comment", "obj_info")]
    if not lines or lines[0][0] != "format" or len(lines[0]) != 3 or lines[0][1] not in _ORDERS:
        raise ObjectError(path, "malformed", f"names none of the formats {', '.join(_ORDERS)} in its header")
    elements = [number for number, words in enumerate(lines) if words[0] == "element"]
    if any(lines[number][1:2] == ["chunk"] for number in elements):
        raise ObjectError(path, "unsupported", "is a compressed splat; export it as a plain .ply")
    if not elements or elements[0] != 1 or lines[1][1:2] != ["vertex"]:
        raise ObjectError(path, "unsupported", "does not begin with its vertices; export it as a 3D Gaussian .ply")
    count = _count(path, lines[1])
    end = elements[1] if len(elements) > 1 else len(lines)
    fields = _fields(path, lines[2:end])
    return _Layout(order=_ORDERS[lines[0][1]], count=count, fields=fields)


def _count(path: Path, words: list[str]) -> int:
    if len(words) != 3 or not re.fullmatch(r"[0-9]{1,18}", words[2]):
        raise ObjectError(path, "malformed", f"does not say how many Gaussians it has: {' '.join(words)[:80]!r}")
    count = int(words[2])
    if count == 0:
        raise ObjectError(path, "empty_mesh", "has no Gaussians")
    if count > MAX_GAUSSIANS:
        raise ObjectError(path, "too_large", f"has {count} Gaussians, more than {MAX_GAUSSIANS}; prune it")
    return count


def _fields(path: Path, lines: list[list[str]]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for words in lines:
        if len(words) != 3 or words[0] != "property" or words[1] not in _TYPES or words[2] in fields:
            kind: Reason = "unsupported" if words[:2] == ["property", "list"] else "malformed"
            line = " ".join(words)[:80]
            raise ObjectError(path, kind, f"has a line in its header that is of no use here: {line!r}")
        fields[words[2]] = _TYPES[words[1]]
    missing = [name for name in (*_MEANS, *_DC, "opacity", *_SCALES, *_QUATS) if name not in fields]
    if missing:
        raise ObjectError(
            path, "unsupported", f"holds no 3D Gaussians: {', '.join(missing)} are missing. Meshes are read from GLB"
        )
    rest = {name for name in fields if name.startswith("f_rest_")}
    if len(rest) not in _NUMS_REST or rest != {f"f_rest_{index}" for index in range(len(rest))}:
        raise ObjectError(
            path, "malformed", f"has {len(rest)} fields f_rest_*; degree 0 to 3 has {', '.join(map(str, _NUMS_REST))}"
        )
    return fields


def _binary(path: Path, file: IO[bytes], layout: _Layout) -> _Columns:
    kind = np.dtype([(name, layout.order + code) for name, code in layout.fields.items()])
    there = os.fstat(file.fileno()).st_size - file.tell()
    if there < layout.count * kind.itemsize:
        raise _cut_off(path, there // kind.itemsize, layout.count)
    rows = np.fromfile(file, dtype=kind, count=layout.count)
    return _Columns(path, {name: rows[name] for name in layout.fields})


def _ascii(path: Path, file: IO[bytes], layout: _Layout) -> _Columns:
    there = os.fstat(file.fileno()).st_size - file.tell()
    # A number takes a digit and a space at least, but for the last.
    if there < layout.count * 2 * len(layout.fields) - 1:
        raise _cut_off(path, there // (2 * len(layout.fields)), layout.count)
    try:
        rows = np.loadtxt(file, dtype=np.float64, comments=None, max_rows=layout.count, ndmin=2)
    except ValueError as error:
        raise ObjectError(path, "malformed", f"has lines that are not numbers: {str(error)[:120]}") from error
    if rows.shape != (layout.count, len(layout.fields)):
        raise _cut_off(path, len(rows), layout.count)
    return _Columns(path, dict(zip(layout.fields, rows.T, strict=True)))


def _cut_off(path: Path, there: int, wanted: int) -> ObjectError:
    detail = f"is cut off: its header promises {wanted} Gaussians, {there} are there; fetch or write it anew"
    return ObjectError(path, "malformed", detail)
