"""State on disk from which a run resumes.

It is the coordinator's checkpoint, and a site's last replies.
"""
