"""Measuring detections: COCO numbers, tables by class, best thresholds, whole models."""
