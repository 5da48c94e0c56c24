"""The attentions against their formulas, written out head by head and token by token in float64."""

import math

import pytest
import torch
from torch import Tensor

from tests.training.toys import scramble
from training.model import attention
from training.model.attention import (
    AlphaBlender,
    Grid,
    MultiViewAttention,
    SpatioTemporalAttention,
    TextImageAttention,
    attend,
)
from training.model.positions import sin1d, sin2d

ITEMS, VIEWS, FRAMES, HEIGHT, WIDTH, CHANNELS, HEADS = 2, 3, 4, 2, 3, 8, 2
PIXELS = HEIGHT * WIDTH


@pytest.fixture(autouse=True)
def _exact() -> None:
    torch.manual_seed(3)


def softmax_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Two-dimensional inputs (tokens, channels); heads one after the other."""
    size = CHANNELS // HEADS
    parts = []
    for head in range(HEADS):
        q, k, v = (states[:, head * size : (head + 1) * size] for states in (query, key, value))
        weights = torch.exp(q @ k.T / math.sqrt(size))
        parts.append(weights / weights.sum(dim=1, keepdim=True) @ v)
    return torch.cat(parts, dim=1)


def test_multi_view_attention_is_its_formula() -> None:
    module = MultiViewAttention(CHANNELS, HEADS).double()
    scramble(module, 5)
    w = {name: parameter.detach() for name, parameter in module.named_parameters()}
    states = torch.randn(ITEMS, VIEWS, FRAMES, PIXELS, CHANNELS, dtype=torch.float64)

    wanted = torch.empty_like(states)
    for item in range(ITEMS):
        first = states[item, :, 0].reshape(-1, CHANNELS)
        for frame in range(FRAMES):
            tokens = states[item, :, frame].reshape(-1, CHANNELS)
            own = softmax_attention(
                tokens @ w["to_q.weight"].T, tokens @ w["to_k.weight"].T, tokens @ w["to_v.weight"].T
            )
            adapted = softmax_attention(
                tokens @ w["processor.to_q_i2v.weight"].T, first @ w["to_k.weight"].T, first @ w["to_v.weight"].T
            )
            adapted = adapted @ w["processor.to_out_i2v.weight"].T + w["processor.to_out_i2v.bias"]
            out = (own + adapted) @ w["to_out.0.weight"].T + w["to_out.0.bias"]
            wanted[item, :, frame] = out.reshape(VIEWS, PIXELS, CHANNELS)

    got = module(states.flatten(0, 2), Grid(VIEWS, FRAMES)).reshape(states.shape)
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=0)


def test_spatiotemporal_attention_is_its_formula() -> None:
    module = SpatioTemporalAttention(CHANNELS, HEADS, 32).double()
    scramble(module, 6)
    with torch.no_grad():
        # The buffer was made in float32.
        module.processor.time_pos_embed.pe.copy_(sin1d(32, CHANNELS)[None])
    w = {name: parameter.detach() for name, parameter in module.named_parameters()}
    alpha = torch.sigmoid(w["processor.alpha_blender.mix_factor"])
    states = torch.randn(ITEMS, VIEWS, PIXELS, FRAMES, CHANNELS, dtype=torch.float64)
    code = sin2d(HEIGHT, WIDTH, CHANNELS, states.device, states.dtype)

    temporal, spatial = torch.empty_like(states), torch.empty_like(states)
    for item in range(ITEMS):
        for view in range(VIEWS):
            for pixel in range(PIXELS):
                x = states[item, view, pixel] + sin1d(FRAMES, CHANNELS)
                out = softmax_attention(x @ w["to_q.weight"].T, x @ w["to_k.weight"].T, x @ w["to_v.weight"].T)
                temporal[item, view, pixel] = out @ w["to_out.0.weight"].T + w["to_out.0.bias"]
        for frame in range(FRAMES):
            x = (states[item, :, :, frame] + code).reshape(-1, CHANNELS)
            out = softmax_attention(*(x @ w[f"processor.to_{which}_sp.weight"].T for which in "qkv"))
            out = out @ w["processor.to_out_sp.weight"].T + w["processor.to_out_sp.bias"]
            spatial[item, :, :, frame] = out.reshape(VIEWS, PIXELS, CHANNELS)

    got = module(states.flatten(0, 2), Grid(VIEWS, FRAMES), code).reshape(states.shape)
    torch.testing.assert_close(got, alpha * spatial + (1 - alpha) * temporal, atol=1e-6, rtol=0)


def test_cross_attention_adds_the_image_tokens_with_the_same_query() -> None:
    module = TextImageAttention(CHANNELS, 6, HEADS).double()
    scramble(module, 7)
    w = {name: parameter.detach() for name, parameter in module.named_parameters()}
    states, text, image = (
        torch.randn(3, length, size).double() for length, size in ((PIXELS, CHANNELS), (5, 6), (4, 6))
    )
    got = module(states, text, image)
    for row in range(3):
        query = states[row] @ w["to_q.weight"].T
        out = softmax_attention(query, text[row] @ w["to_k.weight"].T, text[row] @ w["to_v.weight"].T)
        out = out + softmax_attention(
            query, image[row] @ w["processor.to_k_ip.0.weight"].T, image[row] @ w["processor.to_v_ip.0.weight"].T
        )
        wanted = out @ w["to_out.0.weight"].T + w["to_out.0.bias"]
        torch.testing.assert_close(got[row], wanted, atol=1e-6, rtol=0)


def test_a_new_adapter_changes_nothing() -> None:
    module = MultiViewAttention(CHANNELS, HEADS)
    torch.nn.init.normal_(module.to_q.weight)
    module.start_adapter()
    assert torch.equal(module.processor.to_q_i2v.weight, module.to_q.weight)
    states = torch.randn(ITEMS * VIEWS * FRAMES, PIXELS, CHANNELS)
    tokens = states.unflatten(0, (ITEMS, VIEWS, FRAMES)).transpose(1, 2).reshape(-1, VIEWS * PIXELS, CHANNELS)
    frozen = module.to_out[0](attend(module.to_q(tokens), module.to_k(tokens), module.to_v(tokens), HEADS))
    got = module(states, Grid(VIEWS, FRAMES))
    got = got.unflatten(0, (ITEMS, VIEWS, FRAMES)).transpose(1, 2).reshape(frozen.shape)
    assert torch.equal(got, frozen)


def test_a_new_blender_takes_half_of_each() -> None:
    blended = AlphaBlender()(torch.full((2, 3), 4.0), torch.full((2, 3), 1.0))
    assert torch.equal(blended, torch.full((2, 3), 2.5))


def test_more_rows_than_a_kernel_takes_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = torch.randn(3, 7, 5, CHANNELS).unbind()
    whole = attend(query, key, value, HEADS)
    monkeypatch.setattr(attention, "MAX_ROWS", 3)
    torch.testing.assert_close(attend(query, key, value, HEADS), whole)
