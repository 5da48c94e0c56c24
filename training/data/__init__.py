"""Shards -> training examples: an index chosen by SQL, a global order that any number of ranks agrees on, pictures.

Reads the folder `shards/` alone, as it was published or where it was packed; writes nothing.
"""
