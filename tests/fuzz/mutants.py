"""Broken 3D files by number: the same sources, seed and number give the same bytes, here and anywhere."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.fbx import FBX_MUTATORS, mutate_fbx
from tests.fuzz.glb import GLB_MUTATORS, mutate_glb
from tests.fuzz.raw import RAW_MUTATORS

GLB_SHARE, RAW_SHARE = 0.6, 0.25

SAMPLES = (
    "flag.glb", "snowman.glb", "rocket.glb", "clownfish.glb", "toy_car.glb", "windmill.glb", "treasure_chest.glb",
    "helicopter.fbx", "fox.fbx",
)  # fmt: skip
REAL = (
    "RiggedSimple.glb", "BoxAnimated.glb", "RiggedFigure.glb", "SketchfabFoxDraco.glb", "character.glb",
    "KhronosFox.glb", "Manta_ray.glb", "AnimatedMorphSphere.glb", "hostile/quantized.glb",
    "motionbuilder_sausage_rrss_7700_binary.fbx", "Cow.fbx",
)  # fmt: skip
"""Small ones, of every kind of animation."""


@dataclass(frozen=True)
class Mutant:
    """A file that was broken on purpose."""

    number: int
    name: str
    """Its file name, which says what was done to what."""
    content: bytes


def sources_in(samples: Path, real_assets: Path | None) -> list[Path]:
    """The files to start from; the real ones only if they are there."""
    found = [samples / name for name in SAMPLES]
    return found + [real_assets / name for name in REAL if real_assets and (real_assets / name).exists()]


def mutant(sources: Sequence[Path], number: int, *, seed: int = 0) -> Mutant:
    """The mutant of a number."""
    rng = random.Random(f"{seed}/{number}")
    suffix = ".glb" if rng.random() < GLB_SHARE else ".fbx"
    path = rng.choice([source for source in sources if source.suffix == suffix])
    content = path.read_bytes()
    how: str
    if rng.random() < RAW_SHARE:
        how = rng.choice(list(RAW_MUTATORS))
        other = rng.choice(list(sources)).read_bytes()
        content = RAW_MUTATORS[how](content, other, rng)
    elif suffix == ".glb":
        how, content = _several(mutate_glb, list(GLB_MUTATORS), content, rng)
    else:
        how, content = _several(mutate_fbx, list(FBX_MUTATORS), content, rng)
    return Mutant(number, f"{number:04d}_{path.stem}_{how}{suffix}", content)


def _several(
    mutate: Callable[[bytes, Sequence[str], random.Random], bytes],
    names: list[str],
    content: bytes,
    rng: random.Random,
) -> tuple[str, bytes]:
    """One fault or a few at once: a second one is often reached only if the first is small."""
    chosen = [rng.choice(names) for _ in range(rng.choice((1, 1, 2, 3)))]
    return "+".join(chosen), mutate(content, chosen, rng)
