"""Computations inside one institution.

Its table, its models and its own figures. Nothing here knows a network.
"""
