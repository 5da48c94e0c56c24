"""Faults that know nothing of the format: what a bad disk, a cut download or a wrong paste does."""

import random
from collections.abc import Callable


def _flip(content: bytes, other: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 4, 40))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _overwrite(content: bytes, other: bytes, rng: random.Random) -> bytes:
    at, count = rng.randrange(len(content)), rng.choice((1, 4, 64, 4096))
    filling = rng.choice((b"\0", b"\xff", b"\x7f", rng.randbytes(1))) * count
    return content[:at] + filling + content[at + count :]


def _truncate(content: bytes, other: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(1, len(content))]


def _cut(content: bytes, other: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + content[at + rng.choice((1, 4, 100, 4096)) :]


def _repeat(content: bytes, other: bytes, rng: random.Random) -> bytes:
    at, count = rng.randrange(len(content)), rng.choice((1, 4, 100, 4096))
    return content[: at + count] + content[at:]


def _splice(content: bytes, other: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + other[min(at, len(other) - 1) :]


RAW_MUTATORS: dict[str, Callable[[bytes, bytes, random.Random], bytes]] = {
    "flip": _flip,
    "overwrite": _overwrite,
    "truncate": _truncate,
    "cut": _cut,
    "repeat": _repeat,
    "splice": _splice,
}
"""name: from a file's bytes, another file's and a source of chance to broken bytes."""
