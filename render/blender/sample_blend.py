"""Write a .blend whose bytes do not depend on the process that wrote it.

A .blend is a memory dump: blocks headed by the address they had, with the addresses of other blocks inside. It also
carries its own description (SDNA: every struct with its fields), so every pointer in it can be found and numbered anew.
What else varies is unset padding and a few random numbers. Layout as of Blender 4.5: magic of 12 bytes, block headers
of 24 bytes.
"""

import re
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import bpy

MAGIC_BYTES = 12
HEADER = struct.Struct("<4sIQII")
"""Code, size of the body, old address, index of the struct, count of structs."""
POINTER_BYTES = 8


@dataclass(frozen=True)
class Field:
    """A pointer or a plain value within a struct, with nested structs flattened."""

    owner: str
    """Struct that declares it."""
    name: str
    offset: int
    size: int
    is_pointer: bool


@dataclass(frozen=True)
class Block:
    """One block of the file."""

    code: bytes
    address: int
    struct_index: int
    count: int
    start: int
    """Of the body, in the file."""
    size: int


def write_blend(path: Path) -> None:
    """Write the current scene and all it uses; no windows, no preferences."""
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "draft.blend"
        bpy.data.libraries.write(str(draft), {bpy.context.scene}, path_remap="NONE", compress=False)
        path.write_bytes(without_addresses(draft.read_bytes()))


def without_addresses(content: bytes) -> bytes:
    """The same file with its addresses numbered in the order of the blocks, and its random values settled.

    Raises:
        ValueError: Not an uncompressed little-endian 64-bit .blend of version 4.
    """
    if not content.startswith(b"BLENDER-v4"):
        raise ValueError(f"not an uncompressed .blend of Blender 4: {content[:MAGIC_BYTES]!r}")
    blocks = list(_blocks(content))
    dna = next(block for block in blocks if block.code == b"DNA1")
    structs = _structs(content[dna.start : dna.start + dna.size])
    numbers = {block.address: (index + 1) * 16 for index, block in enumerate(blocks) if block.address}
    out = bytearray(content)
    num_nodes = 0
    for block in blocks:
        struct.pack_into("<Q", out, block.start - 16, numbers.get(block.address, 0))
        if block.code in (b"DNA1", b"ENDB"):
            continue
        if block.struct_index == 0:
            _renumber_raw(out, block, numbers)
            continue
        size, fields = structs[block.struct_index]
        for start in range(block.start, block.start + block.count * size, size):
            for field in fields:
                at = start + field.offset
                if field.is_pointer:
                    # What points to no block is a leftover of the running program, which the reader ignores.
                    (address,) = struct.unpack_from("<Q", out, at)
                    struct.pack_into("<Q", out, at, numbers.get(address, 0))
                elif (field.owner, field.name) == ("bNode", "identifier"):
                    num_nodes += 1  # drawn at random; it only has to be unique
                    struct.pack_into("<I", out, at, num_nodes)
                elif _is_arbitrary(field):
                    out[at : at + field.size] = bytes(field.size)
    return bytes(out)


def _is_arbitrary(field: Field) -> bool:
    """Unset padding, a random seed for the sculpt mode's colours, and the path from which an image was packed."""
    return field.name.startswith("_pad") or (field.owner, field.name.split("[")[0]) in {
        ("Mesh", "face_sets_color_seed"),
        ("ImagePackedFile", "filepath"),
    }


def _renumber_raw(out: bytearray, block: Block, numbers: dict[int, int]) -> None:
    """Arrays of pointers have no struct: every aligned word that is the address of a block is taken for one."""
    for at in range(block.start, block.start + block.size - POINTER_BYTES + 1, POINTER_BYTES):
        (word,) = struct.unpack_from("<Q", out, at)
        if word in numbers:
            struct.pack_into("<Q", out, at, numbers[word])


def _blocks(content: bytes) -> Iterator[Block]:
    at = MAGIC_BYTES
    while at < len(content):
        code, size, address, struct_index, count = HEADER.unpack_from(content, at)
        yield Block(code, address, struct_index, count, at + HEADER.size, size)
        at += HEADER.size + size


def _structs(dna: bytes) -> list[tuple[int, list[Field]]]:
    """Size and flattened fields of every struct of the file.

    Args:
        dna: Body of the DNA1 block: "SDNA", then NAME, TYPE, TLEN and STRC, each aligned to 4 bytes.
    """
    names, at = _strings(dna, 8)
    types, at = _strings(dna, at + 4)
    lengths = struct.unpack_from(f"<{len(types)}H", dna, at + 4)
    at = _aligned(at + 4 + 2 * len(types))
    (num_structs,) = struct.unpack_from("<I", dna, at + 4)
    at += 8
    declared: dict[int, list[tuple[int, int]]] = {}
    for _ in range(num_structs):
        type_index, num_fields = struct.unpack_from("<HH", dna, at)
        flat = struct.unpack_from(f"<{2 * num_fields}H", dna, at + 4)
        declared[type_index] = list(zip(flat[::2], flat[1::2], strict=True))
        at += 4 + 4 * num_fields

    flattened: dict[int, list[Field]] = {}

    def flatten(type_index: int) -> list[Field]:
        if type_index in flattened:
            return flattened[type_index]
        fields: list[Field] = []
        offset = 0
        for field_type, name_index in declared[type_index]:
            name = names[name_index]
            is_pointer = name[0] in "*("
            size = POINTER_BYTES if is_pointer else lengths[field_type]
            for _ in range(_array_length(name)):
                if not is_pointer and field_type in declared:
                    fields += [
                        Field(f.owner, f.name, offset + f.offset, f.size, f.is_pointer) for f in flatten(field_type)
                    ]
                else:
                    fields.append(Field(types[type_index], name, offset, size, is_pointer))
                offset += size
        flattened[type_index] = fields
        return fields

    return [(lengths[type_index], flatten(type_index)) for type_index in declared]


def _array_length(name: str) -> int:
    length = 1
    for count in re.findall(r"\[(\d+)\]", name):
        length *= int(count)
    return length


def _strings(dna: bytes, at: int) -> tuple[list[str], int]:
    """A counted list of zero-terminated strings, and where the next section starts."""
    (count,) = struct.unpack_from("<I", dna, at)
    at += 4
    strings = []
    for _ in range(count):
        end = dna.index(b"\0", at)
        strings.append(dna[at:end].decode())
        at = end + 1
    return strings, _aligned(at)


def _aligned(at: int) -> int:
    return (at + 3) // 4 * 4
