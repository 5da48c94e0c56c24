from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fourd.losses.matches import Matches
from fourd.video import MultiViewVideo
from pipeline.cameras import look_at_origin, pinhole

SIZE_PX = 64
RED, BLUE = (220, 30, 30), (30, 30, 220)


def video(*squares: tuple[int, int, tuple[int, int, int]]) -> MultiViewVideo:
    """One frame of one view from the front, with coloured squares of 8 pixels from a column and row on."""
    rgba = torch.zeros(1, 1, SIZE_PX, SIZE_PX, 4, dtype=torch.uint8)
    for column, row, color in squares:
        rgba[0, 0, row : row + 8, column : column + 8] = torch.tensor([*color, 255], dtype=torch.uint8)
    c2w = torch.as_tensor(look_at_origin(0.0, 0.0, 3.0), dtype=torch.float32)[None, None]
    return MultiViewVideo(clip_id="squares", views=(0,), rgba=rgba, c2w=c2w, intrinsics=pinhole(40.0, SIZE_PX), fps=8.0)


def under(made: MultiViewVideo, column: float, row: float, depth: float = 3.0) -> Tensor:
    """An 8 x 8 patch of points that stand where pixels from a column and row on show them, shape (1, 64, 3)."""
    pixel = torch.stack(torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="xy"), dim=-1).reshape(-1, 2)
    fx, fy, cx, cy = made.intrinsics
    x, y = (pixel[:, 0] + column + 0.5 - cx) / fx * depth, (pixel[:, 1] + row + 0.5 - cy) / fy * depth
    seen = torch.stack([x, y, torch.full_like(x, depth)], dim=1)
    c2w = made.c2w[0, 0]
    return (seen @ c2w[:3, :3].T + c2w[:3, 3])[None]


def colored(color: tuple[int, int, int], count: int = 64) -> Tensor:
    return (torch.tensor(color) / 255).expand(1, 1, count, 3)


def distance(made: MultiViewVideo, positions: Tensor, colors: Tensor) -> Tensor:
    return Matches(made).distance(torch.tensor([0]), positions, colors, torch.Generator().manual_seed(0))


def moved_to_match(made: MultiViewVideo, positions: Tensor, colors: Tensor) -> Tensor:
    """As one piece, by its gradient."""
    shift = torch.zeros(positions.shape[0], 1, 3, requires_grad=True)
    optimizer = torch.optim.Adam([shift], lr=0.05)
    for _ in range(80):
        optimizer.zero_grad()
        distance(made, positions + shift, colors).backward()
        optimizer.step()
    return (positions + shift).detach()


def test_points_on_pixels_that_look_like_them_are_at_no_distance() -> None:
    made = video((12, 20, RED))
    assert float(distance(made, under(made, 12, 20), colored(RED))) == 0.0
    # Half a pixel is for the pictures themselves to mend.
    assert float(distance(made, under(made, 12.5, 20), colored(RED))) == 0.0
    # Twenty pixels of 64: (20/64)² from most points, less from those on the near side.
    assert 0.05 < float(distance(made, under(made, 32, 20), colored(RED))) < 2 * (20 / 64) ** 2


def test_points_come_from_afar_where_pictures_have_nothing_in_common() -> None:
    made = video((4, 44, RED))
    start = under(made, 44, 10)
    assert float(distance(made, start, colored(RED))) > 0.5
    found = moved_to_match(made, start, colored(RED))
    # A pixel: how far away they are one view does not show.
    assert float(distance(made, found, colored(RED))) < 1.5 / SIZE_PX**2


def test_colors_tell_which_of_two_things_is_which() -> None:
    made = video((8, 28, RED), (40, 28, BLUE))
    # Either stands nearer to the other one's place.
    red, blue = under(made, 30, 28), under(made, 18, 28)
    positions, colors = torch.cat([red, blue], dim=1), torch.cat([colored(RED), colored(BLUE)], dim=2)
    for part, column in ((slice(64), 8), (slice(64, None), 40)):
        leaf = positions.clone().requires_grad_()
        distance(made, leaf, colors).backward()
        assert leaf.grad is not None
        way = under(made, column, 28) - positions[:, part]
        assert float((-leaf.grad[:, part] * way).sum()) > 0, column


def test_what_is_hidden_is_not_pulled() -> None:
    made = video((12, 20, RED))
    behind = under(made, 13, 21, depth=3.4)
    positions = torch.cat([under(made, 12, 20), behind], dim=1).requires_grad_()
    colors = torch.cat([colored(RED), colored(BLUE)], dim=2)
    (distance(made, positions, colors) + 0 * positions.sum()).backward()
    assert positions.grad is not None
    assert not bool(positions.grad[:, 64:].any())


def test_points_that_show_their_back_pull_at_nothing() -> None:
    made = video((12, 20, RED))
    positions = torch.cat([under(made, 12, 20), under(made, 40, 20)], dim=1).requires_grad_()
    colors = colored(RED, 128)
    shows_its_back = torch.arange(128).expand(1, 1, -1) >= 64
    seen, unseen = (
        Matches(made).distance(torch.tensor([0]), positions, colors, torch.Generator().manual_seed(0), hidden=hidden)
        for hidden in (None, shows_its_back)
    )
    assert float(seen.detach()) > 0.05
    assert float(unseen.detach()) == 0.0


def test_an_empty_picture_pulls_at_nothing() -> None:
    made = video()
    assert float(distance(made, under(made, 12, 20), colored(RED))) == 0.0


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_distances_are_shares_of_the_width(scale: float) -> None:
    made = video((12, 20, RED))
    side = round(SIZE_PX * scale)
    grown = torch.nn.functional.interpolate(made.rgba[0].permute(0, 3, 1, 2).float(), size=(side, side), mode="nearest")
    other = replace(made, rgba=grown.permute(0, 2, 3, 1)[None].byte(), intrinsics=pinhole(40.0, side))
    at = under(made, 36, 20)
    assert float(distance(other, at, colored(RED))) == pytest.approx(float(distance(made, at, colored(RED))), rel=0.1)
