import numpy as np
import pytest

from pipeline.cameras import pinhole, project, to_mv_video
from render.rigs import RIGS, Cameras, RigView, views_of

CAMERAS = Cameras()
for_all_rigs = pytest.mark.parametrize("name", sorted(RIGS))
for_some_ids = pytest.mark.parametrize("clip_id", [f"{number:016x}" for number in range(10)])


def all_c2w(views: tuple[RigView, ...]) -> np.ndarray:
    return np.concatenate([view.c2w(CAMERAS.radius) for view in views])


@for_all_rigs
@for_some_ids
def test_every_camera_is_rigid_upright_and_looks_at_the_origin(name: str, clip_id: str) -> None:
    for c2w in all_c2w(views_of(name, CAMERAS, clip_id)):
        assert np.allclose(c2w[:3, :3] @ c2w[:3, :3].T, np.eye(3), atol=1e-8)
        assert np.linalg.det(c2w[:3, :3]) == pytest.approx(1.0)
        assert np.linalg.norm(c2w[:3, 3]) == pytest.approx(3.0)
        assert np.allclose(c2w[:3, 2], -c2w[:3, 3] / 3.0, atol=1e-8)
        assert c2w[2, 0] == pytest.approx(0.0, abs=1e-8)  # the picture's x axis is level
        assert c2w[2, 1] < 0  # and its y axis points down


@for_all_rigs
@for_some_ids
def test_the_whole_unit_sphere_is_in_every_picture(name: str, clip_id: str) -> None:
    rng = np.random.default_rng(0)
    sphere = rng.normal(size=(2000, 3))
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    intrinsics = pinhole(CAMERAS.fov_deg, 256)
    for c2w in all_c2w(views_of(name, CAMERAS, clip_id)):
        pixels = project(sphere, c2w, intrinsics)
        assert pixels[:, 2].min() > 0
        assert pixels[:, :2].min() >= 0
        assert pixels[:, :2].max() <= 256


@for_some_ids
def test_mv16_is_the_rig_of_mv_video(clip_id: str) -> None:
    views = views_of("mv16", CAMERAS, clip_id)
    azimuths = np.array([view.azimuth_deg[0] for view in views])
    assert len(views) == 16
    assert np.allclose(np.diff(azimuths), 22.5)
    assert -11.25 <= azimuths[0] <= 11.25
    assert len({view.elevation_deg for view in views}) == 1
    assert 0 <= views[0].elevation_deg <= 30


def test_what_is_drawn_fills_its_range() -> None:
    drawn = [views_of("mv16", CAMERAS, f"{number:016x}")[0] for number in range(400)]
    azimuths, elevations = [view.azimuth_deg[0] for view in drawn], [view.elevation_deg for view in drawn]
    assert min(azimuths) < -10.5
    assert max(azimuths) > 10.5
    assert min(elevations) < 1.5
    assert max(elevations) > 28.5
    assert np.mean(azimuths) == pytest.approx(0.0, abs=1.0)
    assert np.mean(elevations) == pytest.approx(15.0, abs=1.5)


@for_all_rigs
@for_some_ids
def test_the_same_id_gives_the_same_cameras(name: str, clip_id: str) -> None:
    assert views_of(name, CAMERAS, clip_id) == views_of(name, CAMERAS, clip_id)


def test_what_an_id_gives_is_pinned() -> None:
    """A change here changes every data set that was ever made: raise the version of the stages that draw."""
    view = views_of("mv16", CAMERAS, "0123456789abcdef")[0]
    assert (view.azimuth_deg, view.elevation_deg) == ((11.104,), 21.744)


def test_azimuth_0_is_in_front_and_grows_counter_clockwise() -> None:
    front, left, back, right = (view.c2w(3.0)[0, :3, 3] for view in views_of("ortho4", CAMERAS, "x"))
    height = 3.0 * np.sin(np.radians(15))
    out = 3.0 * np.cos(np.radians(15))
    assert np.allclose(front, [0, -out, height])
    assert np.allclose(left, [out, 0, height])
    assert np.allclose(back, [0, out, height])
    assert np.allclose(right, [-out, 0, height])


def test_ortho4_and_front_are_the_same_for_all_clips() -> None:
    for name in ("ortho4", "front"):
        assert views_of(name, CAMERAS, "a") == views_of(name, CAMERAS, "b")


@pytest.mark.parametrize(("name", "num"), [("orbit16", 16), ("orbit24", 24)])
def test_an_orbit_goes_round_once_and_has_a_frozen_twin(name: str, num: int) -> None:
    orbit, static = views_of(name, CAMERAS, "abc")
    assert len(orbit.azimuth_deg) == num
    # N distinct places: the first frame's is not shown again at the end.
    assert np.allclose(np.diff(orbit.azimuth_deg), 360 / num)
    assert (orbit.name, orbit.frozen, static.name, static.frozen) == ("orbit", False, "static", True)
    assert np.array_equal(orbit.c2w(3.0), static.c2w(3.0))


def diffusion4d_place(index: int, azimuth_turns: float, elevation: float) -> np.ndarray:
    """Where the published script puts its camera: -2 unit(sin p, cos p, -e / 180), p = 2 pi (1 - t + azimuth)."""
    angle = 2 * np.pi * (1 - index / 23 + azimuth_turns)
    out = np.array([np.sin(angle), np.cos(angle), -elevation / 180])
    return np.asarray(-2 * out / np.linalg.norm(out))


def diffusion4d_cameras(**changes: float) -> Cameras:
    return Cameras(radius=2.0, orbit_closes=True, elevation_law="diffusion4d", framing="first_box", **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("elevation", [0.0, 5.0, 15.0, 30.0])
def test_diffusion4ds_cameras_are_where_its_script_puts_them(elevation: float) -> None:
    cameras = diffusion4d_cameras(elevation_min_deg=elevation, elevation_max_deg=elevation)
    orbit = views_of("diffusion4d", cameras, "abc")[0]
    places = orbit.c2w(cameras.radius)[:, :3, 3]
    assert np.allclose(places, [diffusion4d_place(index, 0.0, elevation) for index in range(24)], atol=1e-6)
    assert np.allclose(places[0], places[23], atol=1e-8)  # 23 distinct views


def test_diffusion4ds_numbers() -> None:
    level = views_of("diffusion4d", diffusion4d_cameras(), "abc")[0].c2w(2.0)
    assert level[0, :3, 3] == pytest.approx([0, -2, 0])
    assert level[1, :3, 3] == pytest.approx([0.5396, -1.9258, 0], abs=5e-5)
    given = {5.0: 1.59, 15.0: 4.76, 30.0: 9.46}
    for elevation, angle in given.items():
        assert diffusion4d_cameras().true_elevation_deg(elevation) == pytest.approx(angle, abs=5e-3)


def test_diffusion4d_from_any_azimuth_is_its_script_with_that_azimuth() -> None:
    cameras = diffusion4d_cameras(start_jitter_deg=180.0, elevation_min_deg=5.0, elevation_max_deg=30.0)
    starts = set()
    for clip_id in ("a", "b", "c"):
        orbit = views_of("diffusion4d", cameras, clip_id)[0]
        turns = -orbit.azimuth_deg[0] / 360
        elevation = 180 * np.tan(np.radians(orbit.elevation_deg))
        assert 5 <= elevation <= 30
        places = [diffusion4d_place(index, turns, elevation) for index in range(24)]
        assert np.allclose(orbit.c2w(2.0)[:, :3, 3], places, atol=1e-6)
        starts.add(orbit.azimuth_deg[0])
    assert len(starts) == 3


def test_diffusion4d_has_a_twin_and_four_level_views_of_the_motion() -> None:
    cameras = diffusion4d_cameras(elevation_min_deg=20.0, elevation_max_deg=20.0)
    views = views_of("diffusion4d", cameras, "abc")
    assert [view.name for view in views] == ["orbit", "static", "front", "left", "right", "back"]
    assert [view.frozen for view in views] == [False, True, False, False, False, False]
    assert {len(view.azimuth_deg) for view in views} == {24}
    for view, place in zip(views[2:], ([0, -2, 0], [2, 0, 0], [-2, 0, 0], [0, 2, 0]), strict=True):
        assert np.allclose(view.c2w(2.0)[:, :3, 3], place)


def test_an_orbit_closes_only_if_it_is_told_to() -> None:
    ours = views_of("orbit24", CAMERAS, "abc")[0].azimuth_deg
    closed = views_of("orbit24", Cameras(orbit_closes=True), "abc")[0].azimuth_deg
    assert (ours[23] - ours[0], closed[23] - closed[0]) == pytest.approx((345.0, 360.0))


def test_the_first_box_needs_no_room_for_the_unit_sphere() -> None:
    Cameras(radius=2.0, framing="first_box")
    with pytest.raises(ValueError, match="does not fit"):
        Cameras(radius=2.0)


def test_mv_videos_camera_vector_follows_from_its_two_angles() -> None:
    views = views_of("mv16", CAMERAS, "abc")
    start = views[0].azimuth_deg[0]
    for index, view in enumerate(views):
        a, e = np.radians(start + 22.5 * index), np.radians(view.elevation_deg)
        expected = [
            -np.sin(a), -np.sin(e) * np.cos(a), np.cos(e) * np.cos(a), np.cos(e) * np.cos(a),
            np.cos(a), -np.sin(e) * np.sin(a), np.cos(e) * np.sin(a), np.cos(e) * np.sin(a),
            0.0, np.cos(e), np.sin(e), np.sin(e), 0.0, 0.0, 0.0, 1.0,
        ]  # fmt: skip
        assert to_mv_video(view.c2w(3.0)[0]) == pytest.approx(expected, abs=1e-8)


def test_random_views_scatter_over_the_sphere() -> None:
    cameras = Cameras(num_random_views=100)
    views = views_of("random", cameras, "abc")
    assert len(views) == len({view.azimuth_deg for view in views}) == 100
    below = sum(view.elevation_deg < 0 for view in views)
    assert 30 <= below <= 70
    # Evenly by area: a third of the sphere's surface lies within 19.5 degrees of the equator.
    near_equator = sum(abs(view.elevation_deg) < 19.5 for view in views)
    assert 22 <= near_equator <= 46


def test_settings_widen_and_narrow_a_rig() -> None:
    cameras = Cameras(start_jitter_deg=0.0, elevation_min_deg=20.0, elevation_max_deg=20.0)
    view = views_of("mv16", cameras, "abc")[0]
    assert (view.azimuth_deg[0], view.elevation_deg) == (0.0, 20.0)
    seeded = Cameras(start_jitter_deg=45.0, elevation_min_deg=0.0, elevation_max_deg=30.0)
    assert views_of("ortho4", seeded, "a") != views_of("ortho4", seeded, "b")


@pytest.mark.parametrize(
    "bad",
    [
        {"radius": 2.9},
        {"fov_deg": 38.0},
        {"fov_deg": 0.0},
        {"fov_deg": 180.0},
        {"start_jitter_deg": 181.0},
        {"elevation_min_deg": -90.0},
        {"num_random_views": 0},
    ],
)
def test_cameras_that_cannot_be_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"fit|must lie"):
        Cameras(**bad)  # type: ignore[arg-type]


def test_a_lens_that_just_holds_the_unit_sphere_is_accepted() -> None:
    Cameras(radius=1.0001 / np.sin(np.radians(25)), fov_deg=50.0)
    with pytest.raises(ValueError, match="does not fit"):
        Cameras(radius=0.999 / np.sin(np.radians(25)), fov_deg=50.0)


def test_an_empty_elevation_range_is_refused() -> None:
    with pytest.raises(ValueError, match="above the highest"):
        Cameras(elevation_min_deg=40.0).applied_to(RIGS["mv16"])
