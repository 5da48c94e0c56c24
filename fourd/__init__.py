"""A static object and a clip -> a moving one. Nothing is here yet.

May import neither bpy nor ray: it is to run on a GPU machine that has only torch.
"""
