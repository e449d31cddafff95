"""The single checks; ``data/check.py`` calls them."""
