import pytest
import torch

from fourd.motion.hexplane import AXES, TIME, Hexplane


def filled(scales: tuple[tuple[int, int], ...] = ((5, 3), (9, 4)), features: int = 3) -> Hexplane:
    generator = torch.Generator().manual_seed(0)
    planes = Hexplane(scales, features, generator).double()
    with torch.no_grad():
        for plane in planes.parameters():
            plane.uniform_(0.1, 2.0, generator=generator)
    return planes


def queries() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(40, 3, dtype=torch.float64, generator=generator) * 2.6 - 1.3  # some lie outside
    return points, torch.tensor([-1.0, -0.4, 0.1, 1.0], dtype=torch.float64)


def test_cutting_time_once_gives_what_grid_sample_gives_for_each_pair() -> None:
    planes = filled()
    points, times = queries()
    pairs = torch.cat([points.repeat(len(times), 1), times.repeat_interleave(len(points))[:, None]], dim=1)
    plain = planes.sample(pairs).reshape(len(times), len(points), -1)
    fast = planes(points, times)
    assert fast.shape == (4, 40, 6)
    assert torch.allclose(fast, plain, atol=1e-12)
    weights = torch.rand_like(plain)
    wanted = torch.autograd.grad((plain * weights).sum(), list(planes.parameters()))
    found = torch.autograd.grad((fast * weights).sum(), list(planes.parameters()))
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(wanted, found, strict=True))


@pytest.mark.parametrize("scales", [((1, 1),), ((4, 1),), ((1, 4),)])
def test_one_cell_along_an_axis_is_a_constant(scales: tuple[tuple[int, int], ...]) -> None:
    planes = filled(scales)
    points, times = queries()
    pairs = torch.cat([points, torch.full((len(points), 1), 0.1, dtype=torch.float64)], dim=1)
    assert torch.allclose(planes(points, times[2:3])[0], planes.sample(pairs), atol=1e-12)


def test_planes_begin_as_published_so_that_all_frames_begin_alike() -> None:
    planes = Hexplane(((5, 3), (9, 4)), 4, torch.Generator().manual_seed(0))
    for scale in planes.scales():
        for (_, second), plane in zip(AXES, scale, strict=True):
            if second == TIME:
                assert bool((plane == 1).all())
            else:
                assert 0.1 <= float(plane.min()) < float(plane.max()) <= 0.5
    points = torch.rand(10, 3) * 2 - 1
    features = planes(points, torch.tensor([-1.0, 0.3]))
    assert torch.equal(features[0], features[1])


def test_penalties_are_zero_for_flat_planes_and_grow_with_roughness() -> None:
    planes = Hexplane(((5, 4),), 2, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for plane in planes.parameters():
            plane.fill_(1.0)
    assert all(float(value) == 0.0 for value in planes.penalties().values())
    space, time = planes.scales()[0][0], planes.scales()[0][2]
    with torch.no_grad():
        space[..., 2, 2] += 1.0
        time[..., 1, :] += 1.0
    found = {name: float(value) for name, value in planes.penalties().items()}
    # One raised cell of 5 x 5: four differences of 1, two along each axis of 4 x 5.
    assert found["plane_tv"] == pytest.approx(2 * (2 / 20 + 2 / 20))
    # Of two second differences along 4 times, -2 and 1.
    assert found["time_smoothness"] == pytest.approx((4 + 1) / 2)
    assert found["time_l1"] == pytest.approx(1 / 4)
