"""Static objects: a mesh from a GLB, or Gaussians from a .ply, and Gaussians on a mesh."""
