"""Readers: one file or two for each format, and what they have in common."""
