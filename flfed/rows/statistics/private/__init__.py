"""Noised sums of a site's rows, of which a person moves no more than what is charged."""
