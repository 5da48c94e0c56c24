import numpy as np
import torch
from torch.nn import functional

from fourd.light import even_light, lit, to_linear, to_srgb
from fourd.objects import appearance


def directions(count: int, seed: int = 0) -> torch.Tensor:
    return functional.normalize(torch.randn(1, count, 3, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_even_light_leaves_colors_as_they_are() -> None:
    colors = torch.rand(50, 3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(lit(colors, even_light(), directions(50))[0], colors, atol=1e-6, rtol=1e-5)


def test_srgb_is_what_textures_are_read_by() -> None:
    values = np.linspace(0, 1, 101)
    light, color = appearance.to_linear(values), appearance.to_srgb(values)
    torch.testing.assert_close(to_srgb(torch.as_tensor(values)), torch.as_tensor(color))
    torch.testing.assert_close(to_linear(torch.as_tensor(values)).float(), torch.as_tensor(light))
    whole = torch.as_tensor(np.linspace(-0.5, 1.5, 201)).requires_grad_()
    (to_srgb(whole).sum() + to_linear(whole).sum()).backward()
    assert whole.grad is not None
    assert bool(torch.isfinite(whole.grad).all())


def test_nine_numbers_hold_what_a_lamp_gives_a_matt_surface() -> None:
    # max(0, cos), which a lamp at the zenith gives, and the nine numbers nearest to it.
    normals = directions(4000)
    truth = normals[0, :, 2].clamp(min=0)
    light = torch.zeros(9, 3).requires_grad_()
    optimizer = torch.optim.LBFGS([light], max_iter=60)
    white = torch.ones(4000, 3)

    def error() -> torch.Tensor:
        optimizer.zero_grad()
        # A little light from all around: a colour of 0 has no slope.
        found = (to_linear(lit(white, light + 0.5 * even_light(), normals)[0]) - 0.5)[:, 0] - truth
        loss = found.square().mean()
        loss.backward()
        return loss

    optimizer.step(error)
    # Ramamoorthi and Hanrahan: 1 % of the energy is left out, on average.
    assert float(error().detach().sqrt()) < 0.045
    assert float(truth.square().mean().sqrt()) > 0.4


def test_each_camera_sees_the_side_that_faces_it() -> None:
    light = even_light()
    light[2] = 0.6  # brighter where the surface looks up
    normals = torch.tensor([[[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]]])
    towards = torch.tensor([[[[0.3, 0.0, 1.0]] * 2, [[0.3, 0.0, -1.0]] * 2]])  # a camera above, one below
    colors = torch.full((2, 3), 0.5)
    seen = lit(colors, light, normals, towards)
    assert seen.shape == (1, 2, 2, 3)
    up, down = lit(colors, light, normals)[0]
    assert bool((up > down + 0.05).all())
    for point in (0, 1):
        torch.testing.assert_close(seen[0, 0, point], up)
        torch.testing.assert_close(seen[0, 1, point], down)
