"""Weights: our checkpoints, pretrained backbones, and importers of other detectors."""
