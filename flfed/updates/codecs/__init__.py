"""Codecs that a study may ask for.

Each packs an update into fewer bytes, and says how far it may move an entry by that.
"""
