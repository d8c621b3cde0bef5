"""The coordinator's side of a deployment.

It has invited and admitted sites, and the server between them.
"""
