"""Code that depends on Flower's internals.

Most private names of Flower 1.41 stand in this folder.
"""
