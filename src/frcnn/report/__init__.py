"""Pages that a run leaves behind: self-contained HTML, no script, nothing loaded from elsewhere."""
