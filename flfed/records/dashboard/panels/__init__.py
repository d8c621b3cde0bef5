"""The parts of the app's pages, one file a subject."""
