"""The list of the sample assets: how each is made, its licence, and what it should come to."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from render.blender.sample_arms import build_excavator, build_robot_arm
from render.blender.sample_faults import (
    NOT_FOUND_PAGE,
    build_car,
    build_jack_in_the_box,
    build_lighthouse,
    build_rocket,
    build_snowman,
    build_vase,
    take_images_away,
    with_nan_animation,
    with_nan_positions,
)
from render.blender.sample_machines import build_chest, build_helicopter, build_windmill
from render.blender.sample_morphs import build_ball, build_flag, build_flower, build_jellyfish
from render.blender.sample_robot import build_robot
from render.blender.sample_swimmers import build_fish, build_octopus, build_snake
from render.blender.sample_walkers import build_fox, build_parrot


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One file of the set and what it should come to."""

    file: str
    """Relative to the manifest; the suffix is the format."""
    title: str
    expect: str = "clips"
    """`clips`, `clips:TAG` or `rejected:REASON`."""
    expect_actions: int | None = 1
    """Animations in the file, however many objects each moves; None where it cannot be read."""
    tags: str
    """Separated by semicolons."""
    note: str = ""
    spdx: str = "CC0-1.0"
    noai: bool | None = None
    build: Callable[[], None] | None = None
    """Makes the scene, in an empty Blender; None where `finish` writes the file by itself."""
    finish: Callable[[Path], None] | None = None
    """Changes the written file, or writes it."""
    keep_constant_curves: bool = False


def _patched(patch: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda path: _rewrite(path, patch(path.read_bytes()))


def _rewrite(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _copied_from(name: str, share: float = 1.0) -> Callable[[Path], None]:
    """Write the first `share` of an earlier sample's bytes."""

    def write(path: Path) -> None:
        content = (path.parent / name).read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return write


SAMPLES = (
    Sample(file="clownfish.glb", title="Clownfish", tags="skinned;textured", build=build_fish),
    Sample(
        file="parrot.glb",
        title="Macaw",
        expect_actions=3,
        tags="skinned;vertex colours;several animations",
        build=build_parrot,
    ),
    Sample(
        file="toy_robot.glb",
        title="Toy robot",
        expect_actions=8,
        tags="skinned;several materials;several animations",
        note="eight animations, more than the default cap",
        build=build_robot,
    ),
    Sample(file="fox.fbx", title="Fox", expect_actions=3, tags="skinned;several animations", build=build_fox),
    Sample(file="octopus.usdc", title="Octopus", tags="skinned;several materials", build=build_octopus),
    Sample(file="snake.usdz", title="Snake", tags="skinned;textured", build=build_snake),
    Sample(
        file="flower.glb",
        title="Flower",
        tags="morph targets;vertex colours;long",
        note="lasts 5 s: two windows",
        build=build_flower,
    ),
    Sample(
        file="ball/ball.gltf",
        title="Ball on a trampoline",
        tags="morph targets;rigid parts;textured;short",
        note="lasts 1.25 s: shorter than a window",
        build=build_ball,
    ),
    Sample(file="jellyfish.glb", title="Jellyfish", tags="morph targets;vertex colours", build=build_jellyfish),
    Sample(file="flag.glb", title="Flag", tags="morph targets;textured", build=build_flag),
    Sample(file="windmill.glb", title="Windmill", tags="rigid parts;several materials", build=build_windmill),
    Sample(
        file="treasure_chest.glb",
        title="Treasure chest",
        tags="rigid parts;several materials;long",
        note="lasts 5 s: two windows",
        build=build_chest,
    ),
    Sample(
        file="robot_arm/robot_arm.gltf",
        title="Robot arm",
        tags="rigid parts;textured;long",
        note="lasts 5 s: two windows",
        build=build_robot_arm,
    ),
    Sample(
        file="helicopter.fbx",
        title="Helicopter",
        tags="rigid parts;several materials",
        note="one animation of three objects; Blender's importer makes an action of each",
        build=build_helicopter,
    ),
    Sample(
        file="excavator.blend",
        title="Excavator",
        expect_actions=2,
        tags="rigid parts;several materials;several animations",
        note="each action has a slot for every part",
        build=build_excavator,
    ),
    Sample(
        file="jack_in_the_box/jack_in_the_box.gltf",
        title="Jack in the box",
        expect="clips:missing_texture",
        tags="rigid parts;fault",
        note="names a picture that is not there",
        build=build_jack_in_the_box,
        finish=take_images_away,
    ),
    Sample(
        file="snowman.glb",
        title="Snowman",
        expect="rejected:too_still",
        tags="fault",
        note="has an animation in which nothing moves",
        build=build_snowman,
        keep_constant_curves=True,
    ),
    Sample(
        file="lighthouse.glb",
        title="Lighthouse",
        expect="rejected:no_animation",
        expect_actions=0,
        tags="static;fault",
        build=build_lighthouse,
    ),
    Sample(
        file="lighthouse/lighthouse.obj",
        title="Lighthouse in a format without animation",
        expect="rejected:no_animation",
        expect_actions=0,
        tags="static;fault",
        build=build_lighthouse,
    ),
    Sample(
        file="rocket.glb",
        title="Rocket",
        expect="rejected:leaves_frame",
        tags="rigid parts;fault",
        note="flies thirty times its own length",
        build=build_rocket,
    ),
    Sample(
        file="vase.glb",
        title="Vase on a turntable",
        expect="rejected:rigid_only",
        tags="textured;fault",
        note="only the root turns",
        build=build_vase,
    ),
    Sample(
        file="toy_car.glb",
        title="Toy car",
        expect="rejected:teleport",
        tags="rigid parts;fault",
        note="on frame 24 it is eight lengths away, for that frame alone",
        build=build_car,
    ),
    Sample(
        file="nan_positions.glb",
        title="Fish with holes in its numbers",
        expect="rejected:non_finite",
        tags="skinned;fault",
        note="NaN among the vertex positions",
        build=partial(build_fish, "#e84393", "#ffeaa7", "#fd79a8", 11),
        finish=_patched(with_nan_positions),
    ),
    Sample(
        file="nan_animation.glb",
        title="Flag with holes in its motion",
        expect="rejected:non_finite",
        tags="morph targets;fault",
        note="NaN among the animation's values",
        build=partial(build_flag, ("#00b894", "#ffffff", "#0984e3"), "#d63031"),
        finish=_patched(with_nan_animation),
    ),
    Sample(
        file="truncated.glb",
        title="Cut-off download",
        expect="rejected:truncated",
        expect_actions=None,
        tags="fault",
        note="the first 60 % of the jellyfish",
        finish=_copied_from("jellyfish.glb", 0.6),
    ),
    Sample(
        file="empty.glb",
        title="Empty file",
        expect="rejected:empty_file",
        expect_actions=None,
        tags="fault",
        finish=lambda path: _rewrite(path, b""),
    ),
    Sample(
        file="not_found.glb",
        title="Error page saved as a model",
        expect="rejected:not_an_asset",
        expect_actions=None,
        tags="fault",
        finish=lambda path: _rewrite(path, NOT_FOUND_PAGE.encode()),
    ),
    Sample(
        file="blue_tang.glb",
        title="Blue tang",
        expect="rejected:licence_not_allowed",
        tags="skinned;textured;licence",
        note="the licence is made up, to show the policy at work",
        spdx="CC-BY-NC-4.0",
        build=partial(build_fish, "#1f5fe0", "#0b1f4d", "#ffd60a", 7),
    ),
    Sample(
        file="blue_macaw.glb",
        title="Blue macaw",
        expect="rejected:noai",
        expect_actions=3,
        tags="skinned;vertex colours;licence",
        note="the opt-out is made up, to show the policy at work",
        spdx="CC-BY-4.0",
        noai=True,
        build=partial(build_parrot, "#1565d8", "#29b6f6", "#ffca28"),
    ),
    Sample(
        file="found_flag.glb",
        title="Flag from somewhere",
        expect="rejected:licence_unknown",
        tags="morph targets;textured;licence",
        note="states no licence, to show the policy at work",
        spdx="",
        build=partial(build_flag, ("#264653", "#2a9d8f", "#e9c46a", "#f4a261", "#e76f51"), "#fefae0"),
    ),
    Sample(
        file="clownfish_again.glb",
        title="Clownfish under another name",
        expect="rejected:duplicate_bytes",
        tags="skinned;textured;fault",
        note="the same bytes as clownfish.glb",
        finish=_copied_from("clownfish.glb"),
    ),
)
"""In this order in the manifest, so that a copy comes after what it was copied from."""
