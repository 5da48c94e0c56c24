import numpy as np
import pytest

from render.lights import AMBIENT, LAMPS, light_of
from render.look import Look
from render.protocol import Light

IDS = [f"{number:016x}" for number in range(300)]


def strengths(light: Light) -> dict[str, float]:
    return {sun.name: sun.strength for sun in light.suns}


def test_diffusion4ds_suns_are_those_of_its_script() -> None:
    lights = [light_of("diffusion4d", clip_id) for clip_id in IDS]
    drawn = {name: {strengths(light)[name] for light in lights} for name in ("key", "fill", "rim", "bottom")}
    assert drawn == {"key": {3, 4, 5}, "fill": {2, 3, 4}, "rim": {3, 4, 5}, "bottom": {1, 2, 3}}
    assert [sun.rotation_deg for sun in lights[0].suns] == [[45, 0, -45], [45, 0, 135], [-45, 0, -225], [180, 0, 0]]
    assert not any(sun.shadow for light in lights for sun in light.suns)


def test_the_studio_stays_within_its_stated_range_and_fills_it() -> None:
    shares = np.array(
        [
            [sun.strength / lamp.strengths[0] for sun, lamp in zip(light.suns, LAMPS["studio"], strict=True)]
            for light in (light_of("studio", clip_id, jitter=0.1) for clip_id in IDS)
        ]
    )
    assert shares.min() >= 0.9 - 1e-4
    assert shares.max() <= 1.1 + 1e-4
    assert np.ptp(shares, axis=0).min() > 0.19
    assert abs(np.corrcoef(shares[:, 0], shares[:, 1])[0, 1]) < 0.2  # each for itself
    assert strengths(light_of("studio", "a")) == {lamp.name: lamp.strengths[0] for lamp in LAMPS["studio"]}


@pytest.mark.parametrize("name", ["studio", "diffusion4d", "grey"])
def test_the_same_id_gives_the_same_light(name: str) -> None:
    look = Look(lights=name)  # type: ignore[arg-type]
    assert look.light("abc") == look.light("abc")
    if name != "grey":
        assert look.light("abc") != look.light("abd")


def test_what_an_id_gives_is_pinned() -> None:
    """A change here changes every data set that was ever made."""
    assert strengths(Look().light("0123456789abcdef")) == {"key": 1.6361, "fill": 0.8969, "rim": 1.4285}
    suns = strengths(Look(lights="diffusion4d").light("0123456789abcdef"))
    assert suns == {"key": 4.0, "fill": 2.0, "rim": 3.0, "bottom": 2.0}


def test_factors_scale_lamps_and_surroundings() -> None:
    plain = Look(light_jitter=0.0).light("x")
    changed = Look(light_jitter=0.0, light_strength=0.5, ambient_strength=2.0).light("x")
    assert strengths(changed) == pytest.approx({name: value / 2 for name, value in strengths(plain).items()})
    assert changed.ambient_strength == pytest.approx(2 * AMBIENT["studio"])


@pytest.mark.parametrize("shadows", [True, False])
def test_shadows_can_be_had_and_left_out_in_any_rig(shadows: bool) -> None:
    for name in ("studio", "diffusion4d"):
        suns = Look(lights=name, shadows=shadows).light("x").suns  # type: ignore[arg-type]
        assert {sun.shadow for sun in suns} == {shadows}
        drawn = Look(lights=name).light("x").suns  # type: ignore[arg-type]
        assert [sun.strength for sun in suns] == [sun.strength for sun in drawn]


def test_grey_has_no_lamps() -> None:
    light = Look(lights="grey").light("x")
    assert (light.suns, light.picture) == ([], "")
    assert light.ambient_strength > 0


def test_a_picture_is_turned_by_lot_or_as_told() -> None:
    look = Look(lights="hdri", hdris=("a" * 64 + ".exr",))
    turns = [look.light(clip_id).turn_deg for clip_id in IDS]
    assert 0 <= min(turns) < 10
    assert 350 < max(turns) <= 360
    assert Look(lights="hdri", hdris=look.hdris, hdri_turn_deg=30.0).light("x").turn_deg == 30.0


@pytest.mark.parametrize(
    "bad",
    [
        {"lights": "hdri"},
        {"hdri_folder": "skies"},
        {"lights": "hdri", "hdris": ("sky.hdr",)},
        {"lights": "hdri", "hdris": ("../" + "a" * 64 + ".hdr",)},
        {"lights": "grey", "ambient_strength": 0.0},
        {"light_strength": -1.0},
        {"light_jitter": 1.0},
        {"lights": "hdri", "hdri_folder": "skies", "hdri_turn_deg": 1000.0},
    ],
)
def test_looks_that_cannot_be_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"light|hdri"):
        Look(**bad)  # type: ignore[arg-type]
