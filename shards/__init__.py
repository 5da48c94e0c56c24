"""Kept clips -> WebDataset shards with their index, cards, attribution and statistics.

Reads `clips`, `decisions`, `assets` and the clips' files; writes `samples`, `shards/` and the cards beside them.
"""
