"""The listing of models: one file, one class, pure functions of named arrays."""
