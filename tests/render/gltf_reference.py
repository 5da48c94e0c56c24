"""A second opinion on glTF: where the vertices are at any time, by NumPy alone. No Draco, no quantised meshes."""

import base64
import json
import struct
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

_TYPES = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTH = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}


class GltfReference:
    """A file's geometry over time."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        self.rest = b""
        if data[:4] == b"glTF":
            length = struct.unpack_from("<I", data, 12)[0]
            data, self.rest = data[20 : 20 + length], data[28 + length :]
        self.folder = path.parent
        self.document = json.loads(data)
        self.parents = {child: i for i, node in enumerate(self.nodes) for child in node.get("children", [])}
        self.names = [entry.get("name") or f"Anim_{i}" for i, entry in enumerate(self.document.get("animations", []))]

    @property
    def nodes(self) -> list[dict[str, Any]]:
        nodes: list[dict[str, Any]] = self.document["nodes"]
        return nodes

    @cached_property
    def buffers(self) -> list[bytes]:
        return [self._buffer(entry.get("uri")) for entry in self.document["buffers"]]

    def _buffer(self, uri: str | None) -> bytes:
        if uri is None:
            return self.rest
        return base64.b64decode(uri.split(",", 1)[1]) if uri.startswith("data:") else (self.folder / uri).read_bytes()

    def _rows(self, view: int, offset: int, kind: np.dtype, width: int, count: int) -> np.ndarray:
        entry = self.document["bufferViews"][view]
        data, start = self.buffers[entry["buffer"]], entry.get("byteOffset", 0) + offset
        stride = entry.get("byteStride") or width * kind.itemsize
        shape, strides = (count, width), (stride, kind.itemsize)
        return np.ndarray(shape, kind, data, start, strides)

    def accessor(self, index: int) -> np.ndarray:
        entry = self.document["accessors"][index]
        kind, width, count = np.dtype(_TYPES[entry["componentType"]]), _WIDTH[entry["type"]], entry["count"]
        values = np.zeros((count, width))
        if "bufferView" in entry:
            values = self._rows(entry["bufferView"], entry.get("byteOffset", 0), kind, width, count).astype(np.float64)
        if sparse := entry.get("sparse"):
            where, what = sparse["indices"], sparse["values"]
            places_kind = np.dtype(_TYPES[where["componentType"]])
            places = self._rows(where["bufferView"], where.get("byteOffset", 0), places_kind, 1, sparse["count"])[:, 0]
            values[places] = self._rows(what["bufferView"], what.get("byteOffset", 0), kind, width, sparse["count"])
        return np.maximum(values / np.iinfo(kind).max, -1.0) if entry.get("normalized") else values

    def pose(self, animation: int | None, time_s: float) -> list[dict[str, Any]]:
        """Each node's fields at a time."""
        pose = [dict(node) for node in self.nodes]
        if animation is None:
            return pose
        entry = self.document["animations"][animation]
        for channel in entry["channels"]:
            sampler, target = entry["samplers"][channel["sampler"]], channel["target"]
            times, values = self.accessor(sampler["input"])[:, 0], self.accessor(sampler["output"])
            values = values.reshape(len(times), -1)
            if "node" in target and sampler.get("interpolation") == "CUBICSPLINE":
                pose[target["node"]][target["path"]] = _on_curve(times, values.reshape(len(times), 3, -1), time_s)
            elif "node" in target:
                step = sampler.get("interpolation") == "STEP"
                pose[target["node"]][target["path"]] = _between(
                    times, values, time_s, target["path"] == "rotation", step
                )
        return pose

    def points(self, animation: int | None, time_s: float) -> np.ndarray:
        """All vertices that belong to a triangle, z up. Shape (point, 3)."""
        pose = self.pose(animation, time_s)
        worlds: dict[int, np.ndarray] = {}
        found = []
        for index in self._shown():
            if "mesh" in pose[index]:
                mesh = self.document["meshes"][pose[index]["mesh"]]
                weights = pose[index].get("weights", mesh.get("weights", []))
                found += [self._primitive(part, index, pose, weights, worlds) for part in mesh["primitives"]]
        points = np.concatenate(found)
        return np.stack([points[:, 0], -points[:, 2], points[:, 1]], axis=1)

    def _shown(self) -> list[int]:
        queue = list(self.document["scenes"][self.document.get("scene", 0)]["nodes"])
        for index in queue:
            queue += self.nodes[index].get("children", [])
        return queue

    def _primitive(
        self, part: dict[str, Any], index: int, pose: list[dict[str, Any]], weights: Any, worlds: dict[int, np.ndarray]
    ) -> np.ndarray:
        points = self.accessor(part["attributes"]["POSITION"])
        for weight, target in zip(weights, part.get("targets", []), strict=False):
            points = points + float(weight) * self.accessor(target["POSITION"])
        matrices = self._world(index, pose, worlds)[None]
        if "skin" in pose[index]:
            skin = self.document["skins"][pose[index]["skin"]]
            binds = self.accessor(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
            bones = np.stack([self._world(joint, pose, worlds) for joint in skin["joints"]]) @ binds
            joints = self.accessor(part["attributes"]["JOINTS_0"]).astype(int)
            shares = self.accessor(part["attributes"]["WEIGHTS_0"])
            matrices = np.einsum("vk,vkij->vij", shares / shares.sum(axis=1, keepdims=True), bones[joints])
        used = np.unique(self.accessor(part["indices"]).astype(int)) if "indices" in part else slice(None)
        moved = (matrices[:, :3, :3] @ points[:, :, None])[:, :, 0] + matrices[:, :3, 3]
        return np.asarray(moved[used])

    def _world(self, index: int, pose: list[dict[str, Any]], known: dict[int, np.ndarray]) -> np.ndarray:
        if index not in known:
            local = _local(pose[index])
            parent = self.parents.get(index)
            known[index] = local if parent is None else self._world(parent, pose, known) @ local
        return known[index]


def _between(times: np.ndarray, values: np.ndarray, time_s: float, turn: bool, step: bool) -> np.ndarray:
    place = int(np.clip(np.searchsorted(times, time_s, side="right") - 1, 0, len(times) - 1))
    if time_s <= times[0] or place == len(times) - 1 or step:
        return np.asarray(values[place])
    share = (time_s - times[place]) / (times[place + 1] - times[place])
    first, second = values[place], values[place + 1]
    if turn and first @ second < 0:
        second = -second
    return np.asarray(first * (1 - share) + second * share)


def _on_curve(times: np.ndarray, keys: np.ndarray, time_s: float) -> np.ndarray:
    """glTF 2.0, appendix C.5; each key is in-tangent, value, out-tangent."""
    time_s = float(np.clip(time_s, times[0], times[-1]))
    place = int(np.clip(np.searchsorted(times, time_s, side="right") - 1, 0, len(times) - 2))
    length = times[place + 1] - times[place]
    t = (time_s - times[place]) / length
    weights = np.array([2 * t**3 - 3 * t**2 + 1, length * (t**3 - 2 * t**2 + t), -2 * t**3 + 3 * t**2])
    start = weights[0] * keys[place, 1] + weights[1] * keys[place, 2] + weights[2] * keys[place + 1, 1]
    return np.asarray(start + length * (t**3 - t**2) * keys[place + 1, 0])


def _local(node: dict[str, Any]) -> np.ndarray:
    if "matrix" in node:
        return np.array(node["matrix"], dtype=np.float64).reshape(4, 4).T
    x, y, z, w = np.array(node.get("rotation", [0, 0, 0, 1])) / np.linalg.norm(node.get("rotation", [0, 0, 0, 1]))
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, :3] *= np.array(node.get("scale", [1, 1, 1]))
    matrix[:3, 3] = node.get("translation", [0, 0, 0])
    return matrix
