"""Data sets that others have rendered -> our assets, animations and clips, so that they can be curated and packed.

Each layout is a file here: it lists the clips and tells a clip's cameras and pictures; `clips` turns them into rows and
files. No 3D file is at hand, so nothing that is measured on a mesh is known: those numbers are NaN.
"""
