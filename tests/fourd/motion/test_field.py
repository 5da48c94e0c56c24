import pytest
import torch

from fourd.motion.field import HexplaneMotion, HexplaneSettings, MotionField, Points
from fourd.motion.nodes import NodeMotion, NodeSettings
from fourd.motion.rotations import matrix_of_euler, matrix_of_quaternion, multiply_quaternions, quaternion_of_matrix

FRAMES = torch.tensor([0, 1, 4, 5])


def some_points(count: int = 30) -> Points:
    generator = torch.Generator().manual_seed(0)
    return Points(
        positions=torch.rand(count, 3, generator=generator, dtype=torch.float64) - 0.5,
        quats=torch.randn(count, 4, generator=generator, dtype=torch.float64),
        log_scales=torch.randn(count, 3, generator=generator, dtype=torch.float64),
    )


def field_of(kind: str) -> MotionField:
    if kind == "nodes":
        return NodeMotion(some_points(), 6, NodeSettings(levels=(1, 4, 12)), None).double()
    settings = HexplaneSettings(scales=((6, 4), (10, 4)), num_features=4, moves_scales=True)
    return HexplaneMotion(some_points(), 6, settings, torch.Generator().manual_seed(0)).double()


def stirred(field: MotionField) -> MotionField:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return field


@pytest.mark.parametrize("kind", ["hexplane", "nodes"])
def test_frame_0_is_untouched_bit_by_bit_whatever_was_learned(kind: str) -> None:
    field = stirred(field_of(kind))
    moved = field(FRAMES)
    assert torch.equal(moved.positions[0], field.positions)
    assert torch.equal(moved.quats[0], field.quats)
    assert torch.equal(moved.log_scales[0], field.log_scales)
    assert not torch.allclose(moved.positions[1], field.positions, atol=1e-3)
    gradients = torch.autograd.grad(
        moved.positions[0].sum() + moved.quats[0].sum(), list(field.parameters()), allow_unused=True
    )
    assert all(gradient is None or not bool(gradient.any()) for gradient in gradients)


@pytest.mark.parametrize("kind", ["hexplane", "nodes"])
def test_a_new_field_moves_nothing(kind: str) -> None:
    field = field_of(kind)
    moved = field(FRAMES)
    assert torch.allclose(moved.positions, field.positions.expand(4, -1, -1), atol=1e-12)
    assert torch.allclose(moved.quats, field.quats.expand(4, -1, -1), atol=1e-12)


@pytest.mark.parametrize("kind", ["hexplane", "nodes"])
def test_every_parameter_has_a_rate_and_only_one(kind: str) -> None:
    field = field_of(kind)
    grouped = [id(parameter) for group in field.parameter_groups() for parameter in group["params"]]  # type: ignore[attr-defined]
    assert sorted(grouped) == sorted(id(parameter) for parameter in field.parameters())


def test_the_hexplane_field_is_its_formula() -> None:
    """position' = R position + t + Δ, quaternion' = normalise(quat(R R(q)) + Δ), log-scale' = log-scale + Δ."""
    field = stirred(field_of("hexplane"))
    assert isinstance(field, HexplaneMotion)
    frame = 4
    tau = torch.full((len(field.positions), 1), -1 + 2 * frame / 5, dtype=torch.float64)
    features = field.planes.sample(torch.cat([field.positions, tau], dim=1))
    mean = features.mean(dim=0)
    turn = matrix_of_euler(2 * torch.pi * torch.sigmoid(field.global_turn_head(mean)) - torch.pi)
    shift = 2 * torch.sigmoid(field.global_shift_head(mean)) - 1
    positions = torch.stack([turn @ point for point in field.positions]) + shift + field.shift_head(features)
    moved = field(torch.tensor([frame]))
    assert torch.allclose(moved.positions[0], positions, atol=1e-12)
    assert torch.allclose(moved.log_scales[0], field.log_scales + field.scale_head(features), atol=1e-12)
    turned = quaternion_of_matrix(turn @ matrix_of_quaternion(field.quats))
    # A quaternion and its opposite are one turn; the change is added on the side that the point's own stands on.
    side = (multiply_quaternions(quaternion_of_matrix(turn), field.quats) * turned).sum(dim=-1, keepdim=True).sign()
    quats = torch.nn.functional.normalize(side * turned + field.turn_head(features), dim=-1)
    assert torch.allclose(moved.quats[0], quats, atol=1e-12)


def test_one_frame_is_no_motion() -> None:
    with pytest.raises(ValueError, match="at least 2 frames"):
        NodeMotion(some_points(), 1, NodeSettings(), None)
