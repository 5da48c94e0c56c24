"""Clips -> captions, each with where it came from.

Reads `clips`, `assets`, `items` and the clips' pictures; writes the table `captions`. Words made of names and tags need
no row: packing makes them, and packing chooses which caption stands in a shard.
"""
