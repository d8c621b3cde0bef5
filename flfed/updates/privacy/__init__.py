"""Mechanisms that a study may ask for: each says what it promises, and what each round spends."""
