"""How much memory a Blender child is expected to take. `benchmarks/child_memory.py` compares it with what it takes."""

from pipeline.records import Asset, Probe

STARTED_MB = 350.0
"""Of a child with an ordinary asset: 266 when it is empty, 280 to 354 for 27 real ones of 100 to 12,000 vertices."""
FILE_MB = 25.0
"""For each MB of a file, to load and measure it: 4 to 25 for large meshes, as many for 76 actions, 0 for pictures."""
VERTEX_MB = 1.05e-3
VERTEX_FRAME_MB = 0.0275e-3
"""For each vertex, and for each frame of each vertex: a million of them take 1.4 GB over 4 frames, 1.8 GB over 16."""
TEXTURE_PIXEL_MB = 8.5e-6
"""Four bytes in Blender and four in Cycles; pictures of 16 bits a channel take four times as much."""
PICTURE_PIXEL_MB = 200e-6
"""For each pixel of what is drawn: 200 MB at 1024 px."""


def measuring_mb(asset: Asset) -> float:
    """To load and measure an asset of which no more is known than its size."""
    return STARTED_MB + FILE_MB * asset.num_bytes / 1e6


def drawing_mb(probe: Probe, *, size_px: int, num_frames: int) -> int:
    """To draw an asset that has been probed."""
    vertices_mb = probe.num_vertices * (VERTEX_MB + num_frames * VERTEX_FRAME_MB)
    return round(STARTED_MB + vertices_mb + TEXTURE_PIXEL_MB * probe.image_pixels + PICTURE_PIXEL_MB * size_px**2)
