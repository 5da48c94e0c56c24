"""How the weights of MV-VDM's parents are named in their published files, against our names.

Each layout is a table from our name to the file's name; `training.checkpoints` reads and writes files by it.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from training.model.unet import MultiViewVideoUNet, is_animate3d

Table = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One kind of published file."""

    name: str
    """What messages call it."""
    table: Callable[[MultiViewVideoUNet], Table]
    """Our names to the file's names, for a model of this shape."""
    bystanders: str = r"(?!)"
    """A pattern of names that belong in such a file and are not the network's."""
    wrapper: str = ""
    """The key under which a torch file of this kind holds its tensors, if any."""
    nested: bool = False
    """True if a torch file of this kind holds a dictionary of tensors for the first part of each name."""


def _animate3d(model: MultiViewVideoUNet) -> Table:
    return {name: name for name in model.state_dict() if is_animate3d(name)}


def _mvdream_diffusers(model: MultiViewVideoUNet) -> Table:
    return {name: name for name in model.state_dict() if not is_animate3d(name) and not _is_ip_adapter(name)}


def _mvdream_ldm(model: MultiViewVideoUNet) -> Table:
    per_level = int(model.config["layers_per_block"]) + 1
    deepest = len(model.config["block_out_channels"]) - 1
    with_attention = {deepest - int(level) for level in model.config["attention_levels"]}
    return {
        name: "model.diffusion_model." + ldm_name(name, per_level, with_attention) for name in _mvdream_diffusers(model)
    }


def _animatediff(model: MultiViewVideoUNet) -> Table:
    table = {}
    for name in _animate3d(model):
        if name.endswith(".time_pos_embed.pe"):
            # One code for the whole block there, the same code for each attention here.
            table[name] = re.sub(r"attn\d\.processor\.time_pos_embed", "pos_embed", name)
        elif "motion_modules." in name and ".processor." not in name:
            table[name] = name
    return table


def _animatediff_original(model: MultiViewVideoUNet) -> Table:
    table = {}
    for name in _animatediff(model):
        original = re.sub(r"(motion_modules\.\d+)", r"\1.temporal_transformer", name)
        original = original.replace(".processor.time_pos_embed.", ".pos_encoder.")
        original = re.sub(r"\.attn([12])\.", lambda found: f".attention_blocks.{int(found[1]) - 1}.", original)
        original = re.sub(r"\.norm([12])\.", lambda found: f".norms.{int(found[1]) - 1}.", original)
        table[name] = original.replace(".norm3.", ".ff_norm.")
    return table


def _ip_adapter(model: MultiViewVideoUNet) -> Table:
    projection = "encoder_hid_proj.image_projection_layers.0"
    table = {
        f"{projection}.image_embeds.weight": "image_proj.proj.weight",
        f"{projection}.image_embeds.bias": "image_proj.proj.bias",
        f"{projection}.norm.weight": "image_proj.norm.weight",
        f"{projection}.norm.bias": "image_proj.norm.bias",
    }
    keys = [name for name in model.state_dict() if name.endswith(".processor.to_k_ip.0.weight")]
    for number, name in enumerate(_down_up_middle(keys)):
        # Even numbers are the self-attentions, which have nothing in the file.
        for ours, theirs in (("to_k_ip.0.", "to_k_ip."), ("to_v_ip.0.", "to_v_ip.")):
            table[name.replace("to_k_ip.0.", ours)] = f"ip_adapter.{2 * number + 1}.{theirs}weight"
    return table


ANIMATE3D = Layout(name="Animate3D", table=_animate3d, wrapper="state_dict")
MVDREAM_DIFFUSERS = Layout(name="MVDream in diffusers' layout", table=_mvdream_diffusers)
MVDREAM_LDM = Layout(
    name="MVDream's own layout",
    table=_mvdream_ldm,
    # The VAE, the text encoder, averaged weights, and the numbers of the noise schedule.
    bystanders=r"first_stage_model\.|cond_stage_model\.|model_ema\.|[a-z0-9_]+$",
)
ANIMATEDIFF = Layout(name="AnimateDiff's motion adapter in diffusers' layout", table=_animatediff)
ANIMATEDIFF_ORIGINAL = Layout(name="AnimateDiff's own layout", table=_animatediff_original)
IP_ADAPTER = Layout(name="IP-Adapter", table=_ip_adapter, nested=True)


def _is_ip_adapter(name: str) -> bool:
    return name.startswith("encoder_hid_proj.") or "_ip." in name


def _down_up_middle(names: Iterable[str]) -> list[str]:
    """IP-Adapter's order of layers."""
    parts = ("down_blocks", "up_blocks", "mid_block")
    return sorted(names, key=lambda name: (parts.index(name.split(".")[0]), [int(n) for n in re.findall(r"\d+", name)]))


RESNET_PARTS = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "camera_embedding.linear_1": "camera_embed.0",
    "camera_embedding.linear_2": "camera_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def ldm_name(name: str, per_level: int, up_levels_with_attention: set[int]) -> str:
    """Stable Diffusion's original name of a weight that diffusers renamed: one running number for all blocks.

    Args:
        name: diffusers' name.
        per_level: Numbers that one level takes: its layers and the halving; one layer more on the way up.
        up_levels_with_attention: Places of the blocks on the way up whose layers have a transformer.
    """
    stem, _, kind = name.rpartition(".")
    if stem in ENDS:
        return f"{ENDS[stem]}.{kind}"
    parts = stem.split(".")
    if parts[0] == "mid_block":
        part, place, rest = parts[1], int(parts[2]), parts[3:]
        position = "middle_block.1" if part == "attentions" else f"middle_block.{2 * place}"
    else:
        level, part, place, rest = int(parts[1]), parts[2], int(parts[3]), parts[4:]
        if parts[0] == "down_blocks":
            number, prefix = level * per_level + 1, "input_blocks"
        else:
            number, prefix = level * per_level, "output_blocks"
        if part == "downsamplers":
            return f"{prefix}.{number + per_level - 1}.0.op.{kind}"
        if part == "upsamplers":
            slot = 2 if level in up_levels_with_attention else 1
            return f"{prefix}.{number + per_level - 1}.{slot}.conv.{kind}"
        position = f"{prefix}.{number + place}.{int(part == 'attentions')}"
    if part == "resnets":
        rest = [RESNET_PARTS[rest[0]]]
    return ".".join([position, *rest, kind])
