"""Transactions of cards.

They are simulated or read from a source, with windows over a customer's past.
"""
