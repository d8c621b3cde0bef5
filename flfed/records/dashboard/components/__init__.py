"""Charts, tables and styles that the panels share."""
