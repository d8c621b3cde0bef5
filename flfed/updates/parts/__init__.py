"""Parts of a study, a file a feature: its exclusions, the content of its messages, and the outputs of a site."""
