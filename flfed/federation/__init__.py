"""Place where rows, updates and records meet.

It holds the client app, the server app and the engines.
"""
