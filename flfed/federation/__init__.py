"""Place where rows, updates and records meet.

It has the client app, the server app and the engines.
"""
