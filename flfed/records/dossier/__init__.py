"""The dossier of a run, for those who sign: `dossier.py`, with the answer sheets in `sheets/`."""
