"""One typed function for every verb of the command line; torch is imported inside them only."""
