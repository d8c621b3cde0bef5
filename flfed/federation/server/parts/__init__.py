"""Parts of a study at the server of a run, a file a feature: its work at each step of the run."""
