"""From a data set to batches: order, tiles, variation, workers."""
