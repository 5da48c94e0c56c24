"""Inside the Blender child: the only code that imports bpy. It needs numpy and bpy, and the protocol."""
