"""State on disk from which a run goes on: the coordinator's checkpoint, a site's last replies."""
