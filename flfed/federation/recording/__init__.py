"""What the coordinator writes down of a run while it goes on."""
