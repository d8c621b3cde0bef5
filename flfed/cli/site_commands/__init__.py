"""The commands `flfed site ...` of an institution."""
