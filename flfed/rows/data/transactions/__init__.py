"""Transactions of cards: simulated ones, windows over a customer's past, and their source."""
