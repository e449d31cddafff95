"""Picture files to pixels, the same way in every command."""
