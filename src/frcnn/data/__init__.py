"""Data: readers, the data check, splits, variation, the loader, and the generated sample set."""
