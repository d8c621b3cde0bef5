"""`flfed site`: commands of an institution."""
