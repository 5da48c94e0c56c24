"""Small files in the true layouts of their makers; their names are diffusers' or written out, not from our tables."""

import os
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_animatediff_checkpoint_to_diffusers, convert_ldm_unet_checkpoint
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.models.unets.unet_motion_model import MotionAdapter
from safetensors.torch import save_file
from torch import Tensor

from tests.training.toys import TINY, inputs, scramble, tiny_unet
from training.checkpoints import (
    CheckpointError,
    build,
    load_animate3d,
    load_ip_adapter,
    load_motion,
    load_mvdream,
    read_tensors,
    save,
)
from training.layouts import ANIMATE3D, ANIMATEDIFF_ORIGINAL, IP_ADAPTER, MVDREAM_DIFFUSERS, MVDREAM_LDM
from training.model.positions import sin1d
from training.model.unet import MultiViewVideoUNet

SIZES: dict[str, Any] = {
    **TINY,
    "block_out_channels": (16, 32, 32),
    "attention_levels": (0, 1),
    "layers_per_block": 2,
}


@pytest.fixture(scope="module")
def source() -> MultiViewVideoUNet:
    """The model whose weights the files hold."""
    return tiny_unet(seed=11, **SIZES)


@pytest.fixture
def blank() -> MultiViewVideoUNet:
    """Another model of the same sizes."""
    return tiny_unet(seed=12, **SIZES)


def equal_where(ours: MultiViewVideoUNet, theirs: MultiViewVideoUNet) -> set[str]:
    """Names of equal parameters; the time codes are the same in every model."""
    parameters = dict(theirs.named_parameters())
    return {name for name, parameter in ours.named_parameters() if torch.equal(parameter, parameters[name])}


def animate3d_file(folder: Path, model: MultiViewVideoUNet) -> Path:
    tensors = {n: t.clone() for n, t in model.state_dict().items() if "i2v" in n or "motion_modules" in n}
    torch.save({"state_dict": tensors, "epoch": 20, "global_step": 1}, folder / "animate3d_motion_modules.ckpt")
    return folder / "animate3d_motion_modules.ckpt"


def ip_adapter_tensors(model: MultiViewVideoUNet) -> dict[str, dict[str, Tensor]]:
    """Numbered by diffusers' own network: its attentions in its own order, every second a cross-attention."""
    network = UNet2DConditionModel(
        block_out_channels=(16, 32, 32),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=12,
        norm_num_groups=8,
        attention_head_dim=2,
    )
    state = model.state_dict()
    layers = {}
    for number, name in enumerate(network.attn_processors):
        if "attn2" in name:
            layers[f"{number}.to_k_ip.weight"] = state[f"{name}.to_k_ip.0.weight"]
            layers[f"{number}.to_v_ip.weight"] = state[f"{name}.to_v_ip.0.weight"]
    start = "encoder_hid_proj.image_projection_layers.0."
    projection = {
        "proj.weight": state[start + "image_embeds.weight"],
        "proj.bias": state[start + "image_embeds.bias"],
        "norm.weight": state[start + "norm.weight"],
        "norm.bias": state[start + "norm.bias"],
    }
    return {"image_proj": projection, "ip_adapter": layers}


def mvdream_tensors(model: MultiViewVideoUNet) -> dict[str, Tensor]:
    strange = ("i2v", "motion_modules", "_ip.", "encoder_hid_proj")
    return {name: t.clone() for name, t in model.state_dict().items() if not any(part in name for part in strange)}


def original_mvdream_tensors(model: MultiViewVideoUNet) -> dict[str, Tensor]:
    """What a training run of latent diffusion saves: network, VAE, text encoder, schedule."""
    state = model.state_dict()
    tensors = {theirs: state[ours] for ours, theirs in MVDREAM_LDM.table(model).items()}
    others = ("betas", "first_stage_model.encoder.conv_in.weight", "cond_stage_model.transformer.text_model.x.weight")
    return {**tensors, **{name: torch.zeros(3) for name in others}}


def motion_adapter(folder: Path) -> MotionAdapter:
    adapter = MotionAdapter(
        block_out_channels=(16, 32, 32),
        motion_layers_per_block=2,
        motion_num_attention_heads=2,
        motion_norm_num_groups=8,
        motion_max_seq_length=32,
        use_motion_mid_block=True,
    )
    scramble(adapter, 21)
    adapter.save_pretrained(folder)
    return adapter


def original_motion_tensors(adapter: MotionAdapter) -> dict[str, Tensor]:
    """The layout of `mm_sd_v15_v2.ckpt`, checked by diffusers' own converter."""
    tensors = {}
    for name, tensor in adapter.state_dict().items():
        parts = name.split(".")
        place = parts.index("motion_modules") + 2
        inner = ".".join(parts[place:])
        if inner.endswith("pos_embed.pe"):
            for which in (0, 1):
                own = inner.replace("pos_embed.pe", f"attention_blocks.{which}.pos_encoder.pe")
                tensors[".".join([*parts[:place], "temporal_transformer", own])] = tensor
            continue
        for ours, theirs in (
            ("attn1.", "attention_blocks.0."), ("attn2.", "attention_blocks.1."),
            ("norm1.", "norms.0."), ("norm2.", "norms.1."), ("norm3.", "ff_norm."),
        ):  # fmt: skip
            inner = inner.replace(ours, theirs)
        tensors[".".join([*parts[:place], "temporal_transformer", inner])] = tensor
    back = convert_animatediff_checkpoint_to_diffusers(tensors)
    assert set(back) == {name for name in adapter.state_dict() if not name.endswith("pos_embed.pe")}
    return tensors


def test_animate3d_loads_inside_a_state_dict_and_flat(
    tmp_path: Path, source: MultiViewVideoUNet, blank: MultiViewVideoUNet
) -> None:
    file = animate3d_file(tmp_path, source)
    load_animate3d(blank, file)
    own = {name for name, _ in source.named_parameters() if "i2v" in name or "motion_modules" in name}
    assert own == equal_where(blank, source)
    flat = tiny_unet(seed=13, **SIZES)
    torch.save(torch.load(file)["state_dict"], tmp_path / "flat.ckpt")
    load_animate3d(flat, tmp_path / "flat.ckpt")
    assert own == equal_where(flat, source)


def test_the_prefix_of_distributed_training_is_taken_off_only_where_it_stands(
    tmp_path: Path, source: MultiViewVideoUNet, blank: MultiViewVideoUNet
) -> None:
    """The published file has no prefix; the authors' script cuts seven letters off every name all the same."""
    tensors = torch.load(animate3d_file(tmp_path, source))["state_dict"]
    torch.save({"state_dict": {f"module.{n}": t for n, t in tensors.items()}}, tmp_path / "ddp.ckpt")
    load_animate3d(blank, tmp_path / "ddp.ckpt")
    assert equal_where(blank, source) == {name for name in tensors if not name.endswith(".pe")}


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("subfolder", ["", "unet"])
def test_mvdream_loads_from_a_folder(
    tmp_path: Path, source: MultiViewVideoUNet, blank: MultiViewVideoUNet, suffix: str, subfolder: str
) -> None:
    tensors = mvdream_tensors(source)
    (tmp_path / subfolder).mkdir(exist_ok=True)
    file = tmp_path / subfolder / f"diffusion_pytorch_model.{suffix}"
    if suffix == "bin":
        torch.save(tensors, file)
    else:
        save_file(tensors, file)
    load_mvdream(blank, tmp_path)
    assert set(tensors) == equal_where(blank, source)


def test_mvdream_loads_from_its_original_file(
    tmp_path: Path, source: MultiViewVideoUNet, blank: MultiViewVideoUNet
) -> None:
    torch.save(original_mvdream_tensors(source), tmp_path / "sd-v1.5-4view.pt")
    load_mvdream(blank, tmp_path / "sd-v1.5-4view.pt")
    assert set(mvdream_tensors(source)) == equal_where(blank, source)


def test_loading_mvdream_starts_the_adapters_from_its_queries(
    tmp_path: Path, source: MultiViewVideoUNet, blank: MultiViewVideoUNet
) -> None:
    save_file(mvdream_tensors(source), tmp_path / "diffusion_pytorch_model.safetensors")
    load_mvdream(blank, tmp_path)
    attention = blank.down_blocks[0].attentions[0].transformer_blocks[0].attn1
    assert torch.equal(attention.processor.to_q_i2v.weight, attention.to_q.weight)
    assert not attention.processor.to_out_i2v.weight.any()
    assert not attention.processor.to_out_i2v.bias.any()


def test_the_original_names_are_the_ones_that_diffusers_converts() -> None:
    """At full size, without memory: every name of MVDream's file, through diffusers' own converter."""
    with torch.device("meta"):
        model = MultiViewVideoUNet()
    state = model.state_dict()
    table = MVDREAM_LDM.table(model)
    assert len(table) == 690
    file = {theirs: state[ours] for ours, theirs in table.items()}
    converted = convert_ldm_unet_checkpoint(file, {"layers_per_block": 2})
    assert set(converted) == {name for name in table if not name.startswith("camera_embedding.")}
    for name, tensor in converted.items():
        assert tensor is state[name], name
    # Where the converter takes either: behind the transformer, and in its place at the level that has none.
    upsamplers = {theirs for ours, theirs in table.items() if "upsamplers" in ours and theirs.endswith("weight")}
    places = ("2.1", "5.2", "8.2")
    assert upsamplers == {f"model.diffusion_model.output_blocks.{place}.conv.weight" for place in places}
    camera = {theirs for ours, theirs in table.items() if ours.startswith("camera_embedding.")}
    assert camera == {f"model.diffusion_model.camera_embed.{n}.{kind}" for n in (0, 2) for kind in ("weight", "bias")}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("original", [False, True])
def test_the_motion_adapter_loads_in_both_layouts(
    tmp_path: Path, blank: MultiViewVideoUNet, original: bool, prefix: str
) -> None:
    adapter = motion_adapter(tmp_path)
    before = {name: tensor.clone() for name, tensor in blank.state_dict().items()}
    blank.down_blocks[0].motion_modules[0].transformer_blocks[0].attn2.processor.time_pos_embed.pe.zero_()
    if original:
        tensors = {prefix + name: tensor for name, tensor in original_motion_tensors(adapter).items()}
        torch.save({"state_dict": tensors}, tmp_path / "mm_sd_v15_v2.ckpt")
        load_motion(blank, tmp_path / "mm_sd_v15_v2.ckpt")
    else:
        load_motion(blank, tmp_path)
    after = blank.state_dict()
    for name, tensor in adapter.state_dict().items():
        if name.endswith("pos_embed.pe"):
            for attention in ("attn1", "attn2"):
                own = name.replace("pos_embed", f"{attention}.processor.time_pos_embed")
                torch.testing.assert_close(after[own][0], sin1d(32, tensor.shape[-1]).float(), atol=1e-5, rtol=0)
        else:
            assert torch.equal(after[name], tensor), name
    untouched = [name for name in after if name not in adapter.state_dict() and "time_pos_embed" not in name]
    assert all(torch.equal(after[name], before[name]) for name in untouched)


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_ip_adapter_loads_by_its_own_numbers(
    tmp_path: Path, source: MultiViewVideoUNet, blank: MultiViewVideoUNet, suffix: str
) -> None:
    groups = ip_adapter_tensors(source)
    file = tmp_path / f"ip-adapter_sd15.{suffix}"
    if suffix == "bin":
        torch.save(groups, file)
    else:
        flat = {f"{group}.{name}": tensor for group, tensors in groups.items() for name, tensor in tensors.items()}
        save_file({name: tensor.clone() for name, tensor in flat.items()}, file)
    load_ip_adapter(blank, file)
    assert equal_where(blank, source) == {
        name for name in source.state_dict() if "_ip." in name or name.startswith("encoder_hid_proj.")
    }


def test_a_model_built_from_published_files_is_the_whole_model(tmp_path: Path, source: MultiViewVideoUNet) -> None:
    save_file(mvdream_tensors(source), tmp_path / "diffusion_pytorch_model.safetensors")
    torch.save(ip_adapter_tensors(source), tmp_path / "ip-adapter_sd15.bin")
    built = build(
        mvdream=tmp_path,
        ip_adapter=tmp_path / "ip-adapter_sd15.bin",
        animate3d=animate3d_file(tmp_path, source),
        **SIZES,
    )
    assert equal_where(built, source) == {name for name, _ in source.named_parameters()}
    with torch.no_grad():
        assert torch.equal(built.eval()(**inputs()), source(**inputs()))
    with pytest.raises(ValueError, match="not both"):
        build(mvdream=tmp_path, ip_adapter=tmp_path / "ip-adapter_sd15.bin", **SIZES)


def test_published_to_ours_to_published_is_the_same_file(
    tmp_path: Path, source: MultiViewVideoUNet, blank: MultiViewVideoUNet
) -> None:
    """By way of a diffusers folder of ours."""
    file = animate3d_file(tmp_path, source)
    load_animate3d(blank, file)
    blank.save_pretrained(tmp_path / "ours")
    again = MultiViewVideoUNet.from_pretrained(str(tmp_path / "ours"))
    save(again, tmp_path / "exported" / "animate3d_motion_modules.ckpt")
    published, exported = torch.load(file), torch.load(tmp_path / "exported" / "animate3d_motion_modules.ckpt")
    assert exported.keys() == {"state_dict"}
    assert exported["state_dict"].keys() == published["state_dict"].keys()
    for name, tensor in published["state_dict"].items():
        assert torch.equal(exported["state_dict"][name], tensor)
    assert os.listdir(tmp_path / "exported") == ["animate3d_motion_modules.ckpt"]


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize("layout", [MVDREAM_LDM, MVDREAM_DIFFUSERS, IP_ADAPTER, ANIMATEDIFF_ORIGINAL, ANIMATE3D])
def test_every_layout_can_be_written_and_read_again(
    tmp_path: Path, source: MultiViewVideoUNet, blank: MultiViewVideoUNet, layout: Any, suffix: str
) -> None:
    file = tmp_path / f"export.{suffix}"
    save(source, file, layout)
    loaders = {MVDREAM_LDM: load_mvdream, MVDREAM_DIFFUSERS: load_mvdream, IP_ADAPTER: load_ip_adapter}
    loaders.get(layout, load_animate3d if layout is ANIMATE3D else load_motion)(blank, file)
    wanted = {name for name in layout.table(source) if not name.endswith(".pe")}
    assert wanted <= equal_where(blank, source)
    if layout is IP_ADAPTER and suffix == "pt":
        assert set(torch.load(file)) == {"image_proj", "ip_adapter"}


class WritesAFile:
    """Code in a pickle: unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def test_code_in_a_file_does_not_run(tmp_path: Path, blank: MultiViewVideoUNet, source: MultiViewVideoUNet) -> None:
    tensors = torch.load(animate3d_file(tmp_path, source))["state_dict"]
    mark = tmp_path / "it-ran"
    torch.save({"state_dict": {**tensors, "x": WritesAFile(mark)}}, tmp_path / "bad.ckpt")
    with pytest.raises(CheckpointError, match=r"bad\.ckpt: holds more than tensors") as caught:
        load_animate3d(blank, tmp_path / "bad.ckpt")
    assert caught.value.reason == "unsafe"
    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps(WritesAFile(mark), protocol=2))
    with pytest.raises(CheckpointError) as caught:
        load_animate3d(blank, tmp_path / "plain.ckpt")
    assert caught.value.reason == "unsafe"
    assert not mark.exists()


def broken(tensors: dict[str, Tensor], fault: str) -> dict[str, Any]:
    name = "mid_block.motion_modules.0.proj_in.weight"
    changed: dict[str, Any] = dict(tensors)
    match fault:
        case "missing":
            del changed[name]
        case "unexpected":
            changed["mid_block.motion_modules.1.proj_in.weight"] = tensors[name]
        case "shape":
            changed[name] = tensors[name][:-1]
        case "whole numbers":
            changed[name] = tensors[name].long()
        case "sparse":
            changed[name] = tensors[name].to_sparse()
        case "nan":
            changed[name] = tensors[name].clone()
            changed[name][0, 0] = float("nan")
        case "huge":
            changed[name] = torch.zeros(1).expand(10**6, 10**6)
        case "text":
            changed[name] = "weights"
    return changed


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("missing", "missing"),
        ("unexpected", "unexpected"),
        ("shape", "shape"),
        ("whole numbers", "shape"),
        ("sparse", "shape"),
        ("nan", "not_finite"),
        ("huge", "shape"),
        ("text", "layout"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_whole_and_by_name(
    tmp_path: Path, source: MultiViewVideoUNet, blank: MultiViewVideoUNet, fault: str, reason: str
) -> None:
    tensors = torch.load(animate3d_file(tmp_path, source))["state_dict"]
    torch.save({"state_dict": broken(tensors, fault)}, tmp_path / "broken.ckpt")
    before = {name: tensor.clone() for name, tensor in blank.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"broken\.ckpt: .*mid_block\.motion_modules") as caught:
        load_animate3d(blank, tmp_path / "broken.ckpt")
    assert caught.value.reason == reason
    assert all(torch.equal(tensor, before[name]) for name, tensor in blank.state_dict().items())


def test_a_file_of_another_kind_says_what_is_missing(
    tmp_path: Path, source: MultiViewVideoUNet, blank: MultiViewVideoUNet
) -> None:
    file = animate3d_file(tmp_path, source)
    with pytest.raises(CheckpointError, match=r"for IP-Adapter, image_proj\.norm\.bias.* missing.*unexpected"):
        load_ip_adapter(blank, file)
    with pytest.raises(CheckpointError, match=r"for AnimateDiff.*pos_embed\.pe.* missing"):
        load_motion(blank, file)


def test_absent_files_and_other_contents_are_classified(tmp_path: Path, blank: MultiViewVideoUNet) -> None:
    cases: dict[str, bytes | None] = {"absent.ckpt": None, "empty.ckpt": b"", "text.ckpt": b"not a checkpoint\n" * 9}
    for name, content in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=name) as caught:
            load_animate3d(blank, tmp_path / name)
        assert caught.value.reason == ("not_found" if content is None else "damaged")
    with pytest.raises(CheckpointError, match="no folder with"):
        load_mvdream(blank, tmp_path)
    for content in ({}, [1, 2], torch.ones(3), {"epoch": 3}):
        torch.save(content, tmp_path / "other.ckpt")
        with pytest.raises(CheckpointError) as caught:
            load_animate3d(blank, tmp_path / "other.ckpt")
        assert caught.value.reason == "layout"


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    file = tmp_path / "bomb.ckpt"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**6))
    with pytest.raises(CheckpointError, match="compressed"):
        read_tensors(file)


def test_an_entry_that_says_it_is_a_folder_is_refused(tmp_path: Path) -> None:
    """Torch would read no bytes for it and give whatever was in memory."""
    file = tmp_path / "folder.ckpt"
    torch.save({"a": torch.ones(300)}, file)
    content = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        name = next(entry.filename for entry in archive.infolist() if entry.filename.endswith("/data/0")).encode()
    # The name stands 46 bytes into its entry in the directory at the end; the attributes 38.
    content[content.rindex(name) - 46 + 38] |= 0x10
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="a folder") as caught:
        read_tensors(file)
    assert caught.value.reason == "damaged"


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_damaged_files_are_refused_or_harmless(tmp_path: Path, kind: str) -> None:
    """Cut short and with changed bytes, 300 times each: never another exception, never other numbers."""
    tensors = {"a.weight": torch.arange(300.0).reshape(30, 10), "b.bias": torch.ones(7, dtype=torch.float16)}
    whole = tmp_path / "whole"
    if kind == "safetensors":
        save_file(tensors, whole)
    else:
        torch.save(tensors, whole, _use_new_zipfile_serialization=kind == "zip")
    content, file = whole.read_bytes(), tmp_path / "damaged"
    # Only the zip has checksums: in the others a changed number is just another number, so the front is changed.
    changeable = len(content) if kind == "zip" else 150
    chance, refused = random.Random(4), 0
    for trial in range(600):
        damaged = bytearray(content)
        if trial % 2:
            del damaged[chance.randrange(len(content)) :]
        else:
            damaged[chance.randrange(changeable)] ^= 1 << chance.randrange(8)
        file.write_bytes(damaged)
        try:
            found = read_tensors(file)
        except CheckpointError:
            refused += 1
        else:
            if kind == "zip":
                assert found.keys() == tensors.keys()
                assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    assert refused > 300
