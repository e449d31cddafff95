"""Training with Lightning, which nothing outside this package imports."""
