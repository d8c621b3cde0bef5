"""Messages between coordinator and site.

Nothing else crosses.

A class a message, with what it reveals about people (`Reveals:`), in the order of a run: `enrol` (also the seal of a
site's ledger at the end), `summarise`, `train` (the rounds), `secure_sum` (where they are summed under masks),
`compare` (also attacks). `kinds` has their names, `fields` reads and builds their sections and has every sentence that
a site says of its figures, `in_memory` carries them without bytes inside one process. Rows and records are unknown
here. `docs/messages.md` lists them all.
"""
