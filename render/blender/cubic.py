"""Cubic splines of glTF as close polylines: Blender's importer drops their tangents and draws other curves."""

from typing import Any

import numpy as np

from render.blender.gltf_file import GltfFile

TOLERANCE = 1e-4
"""Largest distance of a polyline from its curve: of the channel's own extent, or of a unit quaternion."""
MOST_NUMBERS = 20_000_000
"""Over all curves of a file; above that, polylines are coarser."""


def straighten(file: GltfFile) -> None:
    """Replace each sampler of cubic interpolation by one of linear interpolation with more keys."""
    curves = []
    for animation in file.listed("animations"):
        paths = {channel.get("sampler"): channel["target"].get("path") for channel in animation.get("channels", [])}
        for index, sampler in enumerate(animation.get("samplers", [])):
            if sampler.get("interpolation") == "CUBICSPLINE":
                curves.append((sampler, paths.get(index), *_keys(file, sampler)))
    pieces = [_num_pieces(times, keys, path == "rotation") for _, path, times, keys in curves]
    total = sum(int(numbers.sum()) * keys.shape[-1] for numbers, (*_, keys) in zip(pieces, curves, strict=True))
    if total > MOST_NUMBERS:
        pieces = [np.maximum(1, numbers * MOST_NUMBERS // total) for numbers in pieces]
    for (sampler, path, times, keys), numbers in zip(curves, pieces, strict=True):
        dense, values = sample(times, keys, numbers)
        if path == "rotation":
            lengths = np.linalg.norm(values, axis=-1, keepdims=True)
            values = np.where(lengths > 0.0, values / np.where(lengths > 0.0, lengths, 1.0), [0.0, 0.0, 0.0, 1.0])
        kind = file.listed("accessors")[sampler["output"]]["type"]
        width = 1 if kind == "SCALAR" else values.shape[-1]
        sampler["input"] = file.add_accessor(dense[:, None], "SCALAR")
        sampler["output"] = file.add_accessor(values.reshape(-1, width), kind)
        sampler["interpolation"] = "LINEAR"


def _keys(file: GltfFile, sampler: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Times, shape (n,); and in-tangent, value and out-tangent of each key, shape (n, 3, numbers)."""
    times = file.numbers(sampler["input"])[:, 0]
    outputs = file.numbers(sampler["output"])
    per_key = outputs.size // (3 * len(times)) if len(times) else 0
    return times, outputs.ravel()[: 3 * len(times) * per_key].reshape(len(times), 3, per_key)


def _num_pieces(times: np.ndarray, keys: np.ndarray, is_rotation: bool) -> np.ndarray:
    """Into how many straight pieces each segment is cut. Shape (n - 1,).

    A cubic's second derivative is largest at an end of the segment, and a chord over 1/k of it strays from the curve
    by at most an eighth of that over k².
    """
    start, end, out_tangent, in_tangent = _segments(times, keys)
    bend_start = 6.0 * (end - start) - 4.0 * out_tangent - 2.0 * in_tangent
    bend_end = -6.0 * (end - start) + 2.0 * out_tangent + 4.0 * in_tangent
    bend = np.maximum(np.abs(bend_start), np.abs(bend_end)).max(axis=-1, initial=0.0) / 8.0
    values = keys[:, 1]
    extent = float(max(np.ptp(values, axis=0).max(initial=0.0), bend.max(initial=0.0))) if len(values) else 0.0
    tolerance = TOLERANCE * (1.0 if is_rotation else extent)
    with np.errstate(all="ignore"):
        numbers = np.ceil(np.sqrt(bend / tolerance)) if tolerance > 0.0 else np.ones(len(bend))
    return np.clip(np.nan_to_num(numbers, nan=1.0), 1, 1 / TOLERANCE**0.5).astype(np.int64)


def _segments(times: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Values at both ends and tangents as changes over the whole segment; each of shape (n - 1, numbers)."""
    lengths = np.diff(times)[:, None]
    return keys[:-1, 1], keys[1:, 1], keys[:-1, 2] * lengths, keys[1:, 0] * lengths


def sample(times: np.ndarray, keys: np.ndarray, pieces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points on a curve: all keys, and between them as many as asked for.

    Args:
        times: Of the keys, seconds. Shape (n,).
        keys: In-tangent, value and out-tangent of each. Shape (n, 3, numbers).
        pieces: Of each segment. Shape (n - 1,).

    Returns:
        Times, shape (m,), and values, shape (m, numbers), by the Hermite polynomials of glTF 2.0, appendix C.
    """
    if len(times) < 2:
        return times, keys[:, 1]
    segment = np.repeat(np.arange(len(pieces)), pieces)
    first = np.repeat(np.cumsum(pieces) - pieces, pieces)
    share = (np.arange(len(segment)) - first) / pieces[segment]
    start, end, out_tangent, in_tangent = (part[segment] for part in _segments(times, keys))
    t = share[:, None]
    values = (
        (2 * t**3 - 3 * t**2 + 1) * start
        + (t**3 - 2 * t**2 + t) * out_tangent
        + (-2 * t**3 + 3 * t**2) * end
        + (t**3 - t**2) * in_tangent
    )
    dense = times[segment] + share * np.diff(times)[segment]
    return np.append(dense, times[-1]), np.concatenate([values, keys[-1:, 1]])
