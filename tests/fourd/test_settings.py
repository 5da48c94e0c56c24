from dataclasses import replace
from pathlib import Path

import pytest

from fourd.motion.field import HexplaneSettings
from fourd.motion.nodes import NodeSettings
from fourd.settings import ReconstructionSettings, Stage, Weights, load_settings, preset_names


def test_presets_are_read_whole() -> None:
    assert preset_names() == ["4dgaussians", "animate3d", "cpu", "diffusion4d"]
    paper = load_settings("animate3d")
    assert paper.field == HexplaneSettings()
    assert (paper.weights.rgb, paper.weights.mask, paper.weights.arap) == (100.0, 100.0, 12.0)
    assert paper.stages == (
        Stage(name="reconstruct", steps=750, frames="progressive", steps_per_frame=50, gradient_share=0.1),
    )
    assert isinstance(load_settings("cpu").field, NodeSettings)
    assert [stage.static_views for stage in load_settings("diffusion4d").stages] == [True, False]


def test_settings_can_be_changed_one_by_one_and_come_from_a_file(tmp_path: Path) -> None:
    changed = load_settings("cpu", ["weights.node_arap=7", "num_gaussians=123", "field.shift_rate=0.5"])
    assert changed.weights.node_arap == 7.0
    assert changed.num_gaussians == 123
    assert isinstance(changed.field, NodeSettings)
    assert changed.field.shift_rate == 0.5
    assert changed.stages == load_settings("cpu").stages
    own = tmp_path / "own.yaml"
    own.write_text("name: own\nfield: {levels: [1, 3]}\nweights: {arap: 0}\nstages: [{name: a, steps: 3}]\n")
    assert load_settings(str(own)).field == NodeSettings(levels=(1, 3))


@pytest.mark.parametrize(
    "override",
    ["weights.arap=-1", "weights.nothing=1", "num_gaussians=0", "seed", "weights.plane_tv=1", "background=2"],
)
def test_bad_settings_are_refused(override: str) -> None:
    with pytest.raises(ValueError, match=r"cpu: "):
        load_settings("cpu", [override])


def test_each_new_frame_is_tried_as_stiff_as_asked() -> None:
    stage = Stage(name="s", frames="newest", num_earlier=0, steps_per_frame=10, coarse_share=0.6, stiffness=(1.0, 4.0))
    assert (stage.num_tries, stage.num_coarse, stage.num_per_frame) == (2, 6, 16)
    assert stage.num_steps(5) == 64
    assert replace(stage, stiffness=(1.0,)).num_steps(5) == 40
    for wrong in ({"stiffness": ()}, {"stiffness": (1.0, 0.0)}, {"num_earlier": 1}, {"coarse_share": 0.0}):
        with pytest.raises(ValueError, match="stiffness"):
            replace(stage, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fields of nodes"):
        ReconstructionSettings(name="s", field=HexplaneSettings(), stages=(stage,))


def test_unknown_presets_are_refused() -> None:
    with pytest.raises(ValueError, match="there are 4dgaussians, animate3d"):
        load_settings("best")
    with pytest.raises(ValueError, match="below 0"):
        Weights(rgb=-1.0)
