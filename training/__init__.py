"""Shards -> a trained multi-view video diffusion model, and clips sampled from it.

May import neither bpy nor ray: it is to run on a GPU machine that has only torch.
"""
