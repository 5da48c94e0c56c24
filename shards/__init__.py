"""Kept clips -> WebDataset shards with their index, cards, attribution and statistics.

Reads `clips`, `decisions`, `animations`, `assets`, `probes`, `image_motion`, `truth` and the clips' files; writes the
tables `samples`, `shards`, `truth_samples` and `truth_shards`, and the folder `shards/`, which can be published as it
is. Whether a clip is worth keeping is left to curation.
"""
