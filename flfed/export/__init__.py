"""A trained model taken out: its folder, its signature, predictions by it."""
