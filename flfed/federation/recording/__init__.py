"""Record of a run, written by the coordinator."""
