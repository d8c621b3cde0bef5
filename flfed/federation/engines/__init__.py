"""The ways to run: one app, three engines."""
