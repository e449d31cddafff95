"""What a data set is like to a network: sizes, shapes, how anchors cover them, and what to set."""
