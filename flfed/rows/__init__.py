"""What happens inside one institution: its table, its models, its own figures. Knows no network."""
