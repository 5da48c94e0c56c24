"""Assets -> measured animations, plans and clips, with Blender in a supervised child process.

Reads `assets`; writes `probes`, `animations`, `plans`, `clips`, `truth` and `rejected`, and `clips/`. Judging the
pictures is left to curation. `render/blender/` is the only code that imports bpy.
"""
