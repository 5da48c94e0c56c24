"""Pictures of Gaussians, differentiable: one call for the GPU and for the CPU."""

from fourd.rendering.rasterize import RenderMode, rasterization

__all__ = ["RenderMode", "rasterization"]
