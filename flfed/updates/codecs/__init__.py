"""Codecs that a study may ask for, each of which packs an update into fewer bytes."""
