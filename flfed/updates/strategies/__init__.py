"""Strategies, each one file and one class.

The file has both halves of the algorithm.
"""
