"""The detector: rooms 1 to 13, the path of an image in file order (`detector.py` is the map)."""
