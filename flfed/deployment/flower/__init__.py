"""Code that depends on Flower's internals.

The private names of Flower stand in `flfed/flower_names.py`.
"""
