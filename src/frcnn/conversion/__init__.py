"""Data sets in another form: what that form does not hold, and its files."""
