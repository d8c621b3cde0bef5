"""Panels of the app's pages by subject."""
