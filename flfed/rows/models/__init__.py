"""Listing of the models.

One file holds one class, made of pure functions of named arrays.
"""
