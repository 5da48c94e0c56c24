"""A static object and a multi-view clip -> Gaussians that move, an animated mesh, a page that plays them.

Reads a clip, rendered or generated, and a GLB or a splat .ply. Leaves to others: files of other kinds (render: its
child process turns them into GLB), generating clips (training).

May import neither bpy nor ray: it is to run on a GPU machine that has only torch.
"""
