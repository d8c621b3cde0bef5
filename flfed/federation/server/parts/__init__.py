"""Parts of a study at the server of a run, a file a feature: what each does at the steps of the run."""
