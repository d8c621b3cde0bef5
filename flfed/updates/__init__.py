"""What crosses between institutions: messages, strategies, the guard. Knows no rows."""
