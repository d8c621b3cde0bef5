"""Statistics of studies without a model, as they stand in a record, in tables and sentences."""
