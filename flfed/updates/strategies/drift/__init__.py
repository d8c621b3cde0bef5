"""Strategies against client drift: sites of other rows that move apart in a round."""
