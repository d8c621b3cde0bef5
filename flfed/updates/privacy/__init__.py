"""Privacy mechanisms that a study may ask for.

Each says what it promises, and what each round spends.
"""
