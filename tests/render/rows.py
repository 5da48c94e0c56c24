"""Rows and toy assets for the tests of the render stages."""

import hashlib
import json
from typing import Any

from pipeline.records import Animation, Asset, Probe, content_id
from pipeline.storage import Store


def asset_of(store: Store, content: bytes, *, suffix: str = "glb", name: str = "toy.glb", main_file: str = "") -> Asset:
    """A row for bytes that are put into the blob store."""
    sha256 = hashlib.sha256(content).hexdigest()
    blob = f"blobs/{sha256[:2]}/{sha256}.{suffix}"
    store.write_bytes(blob, content)
    return Asset(
        item_id=content_id(sha256, name), seq=0, asset_id=sha256, source="test", uri="", name=name, title="",
        format=suffix, num_bytes=len(content), blob=blob, main_file=main_file, spdx="CC0-1.0", licence_class="cc0",
        licence_text="", licence_url="", author="", attribution="", source_url="", noai=None, checked_on="",
        evidence="", evidence_sha256="", noai_checked_on="", tags=(),
    )  # fmt: skip


def toy_asset(store: Store, *actions: dict[str, Any], **order: Any) -> Asset:
    """An asset that tells the fake child what to do."""
    return asset_of(store, json.dumps({"actions": actions, **order}).encode())


def action(name: str, start_s: float, end_s: float, **order: Any) -> dict[str, Any]:
    """An action for the fake child, with what it does when measured."""
    return {"name": name, "start_s": start_s, "end_s": end_s, **order}


def probe(**changes: Any) -> Probe:
    """What Blender might find in an asset."""
    values: dict[str, Any] = {
        "asset_id": "a", "blob": "blobs/a.glb", "format": "glb", "main_file": "",
        "blender_version": "4.5", "num_actions": 1, "num_vertices": 8, "num_triangles": 12, "num_objects": 1,
        "num_materials": 0, "num_images": 0, "image_pixels": 0, "missing_textures": (), "family_id": "f",
        "scene_fps": 24.0,
    }  # fmt: skip
    return Probe(**(values | changes))


def animation(action_index: int = 0, window: int = 0, **changes: Any) -> Animation:
    """An animation that passes the gate, unless the changes say otherwise."""
    values: dict[str, Any] = {
        "animation_id": content_id("toy", action_index, window), "asset_id": "a", "action_index": action_index,
        "action_name": f"action {action_index}", "window": window, "start_s": 0.0, "duration_s": 2.0,
        "action_duration_s": 3.0, "num_frames": 16, "fps": 8.0, "looped": False, "motion_mean": 0.05,
        "motion_p95": 0.2, "path_length": 0.3, "rigid_share": 0.2, "loop_gap": 0.1, "moving_start_s": 0.0,
        "moving_end_s": 2.0, "travel": 1.1, "max_jump": 0.02, "jump_ratio": 1.0, "max_stretch": 1.2,
        "rest_diagonal": 1.0, "box_min": (0.0, 0.0, 0.0), "box_max": (1.0, 1.0, 1.0), "finite": True,
        "motion_id": content_id("motion", action_index, window),
    }  # fmt: skip
    return Animation(**(values | changes))
