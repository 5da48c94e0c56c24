"""Clips and animations -> scores, decisions and the contact sheet.

Reads `clips`, `animations` and the clips' files; writes one table a judgement and `decisions`. Thresholds are a query
over the scores: nothing is deleted and nothing is rendered again.
"""
