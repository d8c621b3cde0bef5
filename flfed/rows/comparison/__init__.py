"""Comparisons at a site.

They are of shared against own model, and of attacks on both. Read `arms` first, the models that are compared, and then
`compare`, which withholds figures as the site's policy says.
"""
