"""The web, folders and manifests -> assets with licences, in the blob store.

Reads sources; writes the tables `items`, `assets`, `inspections` and `rejected`, and `blobs/`. It never starts Blender:
what a file really holds is the render stage's to find out.
"""
