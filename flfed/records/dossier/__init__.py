"""Dossier of a run: its report, answer sheets for those who sign, and an RO-Crate.

Read `record.py` first (the record of a run, and a finding in it), then `run_evidence.py` and `model_evidence.py` (the
facts that a sheet may rest on), `sheet.py` (items), `facts.py` (texts that only people can write), `answers.py`,
`pages.py` (HTML), `crate.py` and `dossier.py` (the folder).
"""
