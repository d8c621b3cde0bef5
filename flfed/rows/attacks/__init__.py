"""Attacks on a model, or on what a site sends: how much a reader learns of a row."""
