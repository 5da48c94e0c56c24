import json
from pathlib import Path

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.models.unets.unet_motion_model import MotionAdapter
from safetensors.torch import load_file, save_file

from tests.training.toys import TINY, inputs, tiny_unet
from training.model.unet import MultiViewVideoUNet, is_animate3d


@pytest.fixture(scope="module")
def full_size() -> MultiViewVideoUNet:
    """The published sizes, without memory for the weights."""
    with torch.device("meta"):
        return MultiViewVideoUNet()


def test_the_full_size_model_has_the_published_number_of_weights(full_size: MultiViewVideoUNet) -> None:
    names = list(full_size.state_dict())
    assert len(names) == 1614
    assert sum("i2v" in name or "motion_modules" in name for name in names) == 888
    assert sum(not is_animate3d(name) for name in names) == 726
    trained = full_size.train_only("animate3d")
    assert len(trained) == 846
    assert sum(parameter.numel() for parameter in trained) == pytest.approx(642.7e6, rel=1e-4)
    assert sum(parameter.numel() for parameter in full_size.parameters()) == pytest.approx(1526e6, rel=1e-3)


def test_the_full_size_model_has_the_names_and_shapes_of_its_parents(full_size: MultiViewVideoUNet) -> None:
    with torch.device("meta"):
        image_model = UNet2DConditionModel(cross_attention_dim=768)
        motion = MotionAdapter(use_motion_mid_block=True, motion_max_seq_length=32)
    ours = {name: tensor.shape for name, tensor in full_size.state_dict().items()}
    for name, tensor in image_model.state_dict().items():
        assert ours[name] == tensor.shape, name
    for name, tensor in motion.state_dict().items():
        if not name.endswith("pos_embed.pe"):
            assert ours[name] == tensor.shape, name
    own = set(ours) - set(image_model.state_dict()) - set(motion.state_dict())
    assert {name.split(".")[-2] if "processor" not in name else name.split("processor.")[1] for name in own} == {
        "linear_1", "linear_2", "image_embeds", "norm", "to_k_ip.0.weight", "to_v_ip.0.weight",
        "to_q_i2v.weight", "to_out_i2v.weight", "to_out_i2v.bias", "to_q_sp.weight", "to_k_sp.weight", "to_v_sp.weight",
        "to_out_sp.weight", "to_out_sp.bias", "time_pos_embed.pe", "alpha_blender.mix_factor",
    }  # fmt: skip


@torch.no_grad()
def test_a_network_that_carries_the_clip_begins_with_one_that_stands_still(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = MultiViewVideoUNet(**TINY, carries_clip=True)
    given = inputs()
    layers = MultiViewVideoUNet(**TINY)
    layers.load_state_dict({name: value for name, value in model.state_dict().items() if "carried" not in name})
    still = given["latents"][:, :, :1].expand_as(given["latents"])
    torch.testing.assert_close(model(**given) - layers(**given), still)

    # The other half of what is learnt is a share of the latents as they were given.
    assert model.carried is not None
    model.carried.bias.copy_(torch.tensor([0.5] * 4 + [0.0] * 4))
    torch.testing.assert_close(model(**given) - layers(**given), given["latents"] / 2)
    model.carried.weight.normal_()
    later = {**given, "timestep": given["timestep"] + 100}
    assert not torch.allclose(model(**given) - layers(**given), model(**later) - layers(**later), atol=0.01)
    model.save_pretrained(tmp_path)
    assert torch.equal(MultiViewVideoUNet.from_pretrained(str(tmp_path))(**given), model(**given))


def test_without_motion_and_adapter_one_view_is_stable_diffusion() -> None:
    """The body, block by block, against diffusers' own network with the same weights."""
    model = tiny_unet()
    theirs = UNet2DConditionModel(
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        attention_head_dim=2,
        cross_attention_dim=12,
        norm_num_groups=8,
    ).eval()
    state = model.state_dict()
    theirs.load_state_dict({name: state[name] for name in theirs.state_dict()})
    silence = ("motion_modules", "camera_embedding", "to_v_ip", "to_out_i2v")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # A motion module adds the output of its last projection; the others are silent with zero weights.
            if any(part in name for part in silence) and ("motion_modules" not in name or ".proj_out." in name):
                parameter.zero_()
        given = inputs(items=2, views=1, frames=1, size=(8, 6))
        got = model(**given)
        wanted = theirs(given["latents"].flatten(0, 2), given["timestep"], given["text"]).sample
    torch.testing.assert_close(got.flatten(0, 2), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("views", "frames", "size"), [(1, 1, (4, 4)), (4, 6, (6, 6)), (2, 34, (4, 4)), (3, 2, (5, 7))])
def test_one_set_of_weights_takes_any_number_of_views_frames_and_pixels(
    views: int, frames: int, size: tuple[int, int]
) -> None:
    given = inputs(items=1, views=views, frames=frames, size=size)
    with torch.no_grad():
        out = tiny_unet()(**given)
    assert out.shape == given["latents"].shape
    assert bool(torch.isfinite(out).all())


def test_items_of_a_batch_do_not_see_each_other() -> None:
    model, given = tiny_unet(), inputs(items=3)
    with torch.no_grad():
        together = model(**given)
        alone = model(**{name: tensor[1:2] for name, tensor in given.items()})
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-5)


def test_views_see_each_other_and_have_no_order_but_their_cameras() -> None:
    model, given = tiny_unet(), inputs(items=1, views=3)
    order = [2, 0, 1]
    turned = dict(given)
    for name in ("latents", "image_embeds", "cameras"):
        turned[name] = given[name][:, order]
    changed = dict(given, latents=given["latents"].clone())
    changed["latents"][:, 2] += 1.0
    with torch.no_grad():
        out = model(**given)
        torch.testing.assert_close(model(**turned), out[:, order], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(model(**changed)[:, 0], out[:, 0], atol=1e-3)


@pytest.mark.parametrize("name", ["timestep", "text", "image_embeds", "cameras"])
def test_every_condition_changes_the_prediction(name: str) -> None:
    model, given = tiny_unet(), inputs(items=1)
    other = dict(given, **{name: given[name] + 3})
    with torch.no_grad():
        assert not torch.allclose(model(**other), model(**given), atol=1e-4)


def test_an_extra_embedding_is_added_to_that_of_time_and_camera() -> None:
    model, given = tiny_unet(), inputs(items=2)
    extra = torch.randn(2, 64)
    with torch.no_grad():
        plain = model(**given)
        torch.testing.assert_close(model(**given, extra_embedding=torch.zeros(2, 64)), plain)
        shifted = model(**given, extra_embedding=extra)
        model.time_embedding.linear_2.bias += extra[0]
        torch.testing.assert_close(model(**given)[:1], shifted[:1], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(shifted, plain, atol=1e-3)


def test_only_the_parts_of_animate3d_are_trained() -> None:
    model = tiny_unet()
    trained = model.train_only("animate3d")
    model(**inputs(items=1)).square().mean().backward()
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert with_gradient == {name for name, _ in model.named_parameters() if is_animate3d(name)}
    assert len(trained) == len(with_gradient)
    assert len(model.train_only("all")) == len(list(model.parameters()))


def saved_bytes(model: MultiViewVideoUNet) -> tuple[int, dict[str, torch.Tensor]]:
    """Bytes of activations that wait for the backward pass, and the gradients."""
    model.zero_grad()
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(**inputs(items=1, views=2, frames=4, size=(8, 8))).square().mean()
    in_forward = sum(kept.values())
    loss.backward()
    return in_forward, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_checkpointing_covers_attention_and_motion_modules() -> None:
    model = tiny_unet(block_out_channels=(16, 16), attention_levels=(0, 1))
    plain, gradients = saved_bytes(model)
    model.checkpoint_levels([0])
    partly, _ = saved_bytes(model)
    model.checkpoint_levels("all")
    least, recomputed = saved_bytes(model)
    # Of level 0, which has 4 of 5 pixels, only what goes into its layers is kept.
    assert partly < 0.35 * plain
    assert least < 0.12 * plain
    assert recomputed.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(recomputed[name], gradient, atol=1e-6, rtol=1e-4)
    model.checkpoint_levels([])
    assert saved_bytes(model)[0] == plain


def test_a_level_that_is_not_there_cannot_be_checkpointed() -> None:
    with pytest.raises(ValueError, match="levels must lie"):
        tiny_unet().checkpoint_levels([2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block_out_channels": ()}, "at least one level"),
        ({"attention_levels": (2,)}, "attention_levels"),
        ({"norm_num_groups": 5}, "norm_num_groups"),
        ({"num_attention_heads": 3}, "num_attention_heads"),
    ],
)
def test_impossible_sizes_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiViewVideoUNet(**{**TINY, **changes})


def test_a_saved_folder_loads_to_the_same_model(tmp_path: Path) -> None:
    model, given = tiny_unet(), inputs()
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["block_out_channels"] == [16, 32]
    loaded = MultiViewVideoUNet.from_pretrained(str(tmp_path))
    with torch.no_grad():
        assert torch.equal(loaded(**given), model(**given))


@pytest.mark.parametrize("fault", ["missing", "unexpected"])
def test_a_folder_that_does_not_fit_is_refused_by_name(tmp_path: Path, fault: str) -> None:
    tiny_unet().save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    if fault == "missing":
        del tensors["conv_out.bias"]
    else:
        tensors["conv_out.extra"] = torch.zeros(1)
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="conv_out"):
        MultiViewVideoUNet.from_pretrained(str(tmp_path))


def test_it_computes_in_half_precision_too() -> None:
    given = inputs(items=1)
    model = tiny_unet()
    with torch.no_grad():
        exact = model(**given)
        half = model.to(torch.bfloat16)(**given)
    assert half.dtype == torch.bfloat16
    assert float((half.float() - exact).std() / exact.std()) < 0.1
