"""A moving object into files that others open: animated GLB, splat sequences, MP4.

Reads a static object with its tracks, or Gaussians a frame. Leaves to others: FBX, Alembic and USD (render: Blender
writes them from the GLB), and the page that plays it all (`fourd.viewer`).
"""
