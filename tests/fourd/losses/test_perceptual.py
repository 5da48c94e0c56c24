from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fourd.losses.perceptual import Lpips, WeightsError, load_lpips, wanted_shapes


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, shape in wanted_shapes().items():
        fan = float(torch.tensor(shape[1:]).prod()) if len(shape) > 1 else 1.0
        found[name] = torch.randn(shape, generator=generator) * (2 / fan) ** 0.5 * (len(shape) > 1)
    return {name: tensor.abs() if name.startswith("lin") else tensor for name, tensor in found.items()}


def test_equal_pictures_have_no_distance_and_others_do(tensors: dict[str, torch.Tensor]) -> None:
    lpips = Lpips(tensors)
    picture = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert lpips(picture, picture).tolist() == [0.0, 0.0]
    changed = picture.clone().requires_grad_()
    distance = lpips(changed * 0.8, picture)
    assert bool((distance > 0).all())
    distance.sum().backward()
    assert changed.grad is not None
    assert float(changed.grad.abs().sum()) > 0


def test_weights_come_from_a_file_that_is_checked(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    good = tmp_path / "lpips.safetensors"
    save_file(tensors, good)
    assert isinstance(load_lpips(good), Lpips)
    with pytest.raises(WeightsError, match="not_found"):
        load_lpips(tmp_path / "none.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(good.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="damaged"):
        load_lpips(tmp_path / "cut.safetensors")
    save_file({name: tensor for name, tensor in tensors.items() if name != "lin3.model.1.weight"}, good)
    with pytest.raises(WeightsError, match=r"lin3.model.1.weight.*layout"):
        load_lpips(good)
    save_file(tensors | {"features.0.bias": torch.full((64,), torch.nan)}, good)
    with pytest.raises(WeightsError, match="not_finite"):
        load_lpips(good)
