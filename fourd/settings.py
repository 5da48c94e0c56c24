"""Settings of a reconstruction, and the presets that come with the program: `presets/*.yaml`."""

import dataclasses
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from fourd.motion.field import HexplaneSettings
from fourd.motion.nodes import NodeSettings
from fourd.moving import Drawing
from pipeline.media import GREY

FrameChoice = Literal["all", "progressive", "newest"]


@dataclass(frozen=True, kw_only=True)
class StaticSettings:
    """How the object gets its looks from frame 0 where it has no colours, or if it is to be fitted all the same."""

    steps: int = 80
    color_rate: float = 0.1
    size_rate: float = 0.01
    opacity_rate: float = 0.03
    light_rate: float = 0.1
    smoothness: float = 0.02
    """Weight of differences between neighbours' colours, so that what no view shows looks as what is next to it."""
    change_smoothness: float = 5.0
    """The same where the object has colours, of what they are changed by."""
    always: bool = False
    """Fit objects that have colours too."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights of what is kept small; 0 leaves it out."""

    rgb: float = 100.0
    """Squared difference of colours."""
    mask: float = 100.0
    """Squared difference of alpha."""
    matches: float = 0.0
    """Squared way between points and pixels that look alike, in a stage's coarse share: see `losses/matches.py`."""
    l1: float = 0.0
    """Absolute difference of colours."""
    lpips: float = 0.0
    """Needs a file of weights: `lpips_weights`."""
    depth: float = 0.0
    """Roughness of depth where the picture has no edge."""
    arap: float = 12.0
    """Energy of points and their neighbours, of the best rotations; see `arap_reduction`."""
    node_arap: float = 0.0
    """Energy of nodes by their own turns: nodes only."""
    acceleration: float = 0.0
    """Change of speed: nodes only."""
    plane_tv: float = 0.0
    time_smoothness: float = 0.0
    time_l1: float = 0.0

    def __post_init__(self) -> None:
        if min(vars(self).values()) < 0:
            raise ValueError(f"weights must not be below 0, got {self}")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Some steps in a row that go by the same rules."""

    name: str
    steps: int = 0
    """At most; 0 gives each new frame its `steps_per_frame`, and then ends."""
    frames: FrameChoice = "all"
    """Which frames a step may look at. progressive: one more every `steps_per_frame`. newest: the latest of those and
    `num_earlier` before it."""
    steps_per_frame: int = 50
    frames_per_step: int = 0
    """So many of them are drawn for a step; 0 is all. The newest is always among them while frames are still coming."""
    num_earlier: int = 1
    """Drawn before the newest."""
    coarse_share: float = 0.0
    """Share of a stage's steps, or a new frame's, that look at smaller pictures: a quarter of the width, then half."""
    rate_factor: float = 1.0
    rate_end: float = 1.0
    """The factor that rates fall to by the end of the stage or, with new frames, of each frame, along a cosine."""
    full_rate_at: float = 0.0
    """Way to its matches, in shares of the picture's width, from which a new frame has full rates: nearer ones have
    less, down to a third, since fast steps shake what is in place. At 0, or without matches, all rates are full."""
    stiffness: tuple[float, ...] = (1.0,)
    """Factors on `node_arap`. With more than one, the coarse share of each new frame's steps is done with each of them
    in turn, from the same start, and the frame goes on with the one that fits best."""
    fits_looks: bool = False
    """Colours, opacities and sizes go on being fitted."""
    static_views: bool = False
    """Also looks at the static orbit, if there is one (Diffusion4D's coarse stage)."""
    gradient_share: float = 1.0
    """Share of Gaussians, drawn for each step, that pictures may move."""
    patience: int = 0
    """The stage ends early after so many steps without a loss that is lower by `tolerance`; 0 never does."""
    tolerance: float = 0.002

    def __post_init__(self) -> None:
        if min(self.steps, self.frames_per_step, self.num_earlier, self.patience) < 0 or self.steps_per_frame < 1:
            raise ValueError(f"a stage needs at least one step for each frame, and no count below 0, got {self}")
        if not self.steps and self.frames == "all":
            raise ValueError(f"a stage of all frames needs steps, got {self}")
        if self.full_rate_at < 0 or (self.full_rate_at and self.frames != "newest"):
            raise ValueError(f"full_rate_at is a distance, for frames: newest, got {self}")
        if not self.stiffness or min(self.stiffness) <= 0:
            raise ValueError(f"stiffness lies above 0, got {self}")
        if self.num_tries > 1 and (self.frames != "newest" or self.num_earlier or self.steps or not self.num_coarse):
            raise ValueError(
                f"more than one stiffness needs frames: newest, num_earlier: 0, steps: 0 and a coarse share, got {self}"
            )
        if not 0 < self.gradient_share <= 1 or not 0 <= self.coarse_share <= 1:
            raise ValueError(f"gradient_share lies in 0..1 above 0, coarse_share in 0..1, got {self}")

    @property
    def num_tries(self) -> int:
        """Of each new frame."""
        return len(self.stiffness)

    @property
    def num_coarse(self) -> int:
        """Of a frame's steps, those of a try."""
        return round(self.coarse_share * self.steps_per_frame)

    @property
    def num_per_frame(self) -> int:
        """Steps of a new frame with all its tries."""
        return self.steps_per_frame + (self.num_tries - 1) * self.num_coarse

    def num_steps(self, num_frames: int) -> int:
        """At most, in a clip of so many frames."""
        return self.steps or self.num_per_frame * (num_frames - 1)


@dataclass(frozen=True, kw_only=True)
class ReconstructionSettings:
    """Everything that decides what a reconstruction comes to."""

    name: str
    field: HexplaneSettings | NodeSettings
    stages: tuple[Stage, ...]
    weights: Weights = Weights()
    static: StaticSettings = StaticSettings()
    drawing: Drawing = dataclasses.field(default_factory=Drawing)
    num_gaussians: int = 6000
    """On a mesh's surface."""
    background: float = GREY
    arap_points: int = 512
    """Drawn for each step; 0 is all."""
    arap_neighbours: int = 3
    arap_by_edges: bool = True
    """Along the mesh's edges where there is a mesh; otherwise the nearest points."""
    arap_reduction: Literal["sum", "mean"] = "sum"
    """sum: over points, neighbours and frames, as published. mean: of points, so that a weight fits any number."""
    lpips_weights: str = ""
    """A file for LPIPS on VGG-16; without one its term is left out, and the log says so."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.stages or self.num_gaussians < 1 or self.arap_neighbours < 1 or not 0 <= self.background <= 1:
            raise ValueError("need a stage, a Gaussian, a neighbour, and a background in 0..1")
        if isinstance(self.field, HexplaneSettings) and (self.weights.node_arap or self.weights.acceleration):
            raise ValueError("node_arap and acceleration belong to fields of nodes")
        if isinstance(self.field, HexplaneSettings) and any(stage.num_tries > 1 for stage in self.stages):
            raise ValueError("more than one stiffness belongs to fields of nodes")
        of_planes = self.weights.plane_tv or self.weights.time_smoothness or self.weights.time_l1
        if isinstance(self.field, NodeSettings) and of_planes:
            raise ValueError("plane_tv, time_smoothness and time_l1 belong to hexplane fields")


def preset_names() -> list[str]:
    """The presets that come with the program."""
    return sorted(entry.name[:-5] for entry in _folder().iterdir() if entry.name.endswith(".yaml"))


def load_settings(name_or_path: str, overrides: list[str] | None = None) -> ReconstructionSettings:
    """A preset by its name, or a YAML file of the same form.

    Args:
        name_or_path: Of `preset_names`, or a path.
        overrides: `weights.arap=4`, and so on.

    Raises:
        ValueError: There is no such preset, or what it says is refused.
    """
    if name_or_path in preset_names():
        text = (_folder() / f"{name_or_path}.yaml").read_text()
    elif Path(name_or_path).is_file():
        try:
            text = Path(name_or_path).read_text("utf-8")
        except ValueError as error:
            raise ValueError(f"{name_or_path}: a preset is a YAML file, and this is no text") from error
    else:
        raise ValueError(f"no preset {name_or_path!r}; there are {', '.join(preset_names())}, or give a YAML file")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(ReconstructionSettings, "settings")
    try:
        given = yaml.safe_load(text)
        if not isinstance(given, dict):
            raise ValueError("a preset is a YAML file of names and values")
        for override in overrides or []:
            _put(given, override)
        made = parser.instantiate(parser.parse_object({"settings": given})).settings
    except (ArgumentError, ValueError, TypeError, yaml.YAMLError) as error:
        raise ValueError(f"{name_or_path}: {error}") from error
    assert isinstance(made, ReconstructionSettings)
    return made


def _put(given: Any, override: str) -> None:
    """Set one value, by its names with dots between."""
    path, equals, value = override.partition("=")
    *groups, name = path.split(".")
    if not equals:
        raise ValueError(f"--set takes name=value, got {override!r}")
    for group in groups:
        given = given.setdefault(group, {})
        if not isinstance(given, dict):
            raise ValueError(f"--set {override}: {group!r} has no names inside")
    given[name] = yaml.safe_load(value)


def _folder() -> resources.abc.Traversable:
    return resources.files("fourd") / "presets"
