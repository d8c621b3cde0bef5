"""Messages between coordinator and site.

Nothing else crosses.

Each message is a class, whose `Reveals:` says what it reveals about people. In the order of a run they are `enrol`
(also the seal of a site's ledger at the end), `summarise`, `train` (the rounds), `secure_sum` (where they are summed
under masks) and `compare` (also attacks). `kinds` has their names, `fields` reads and builds their sections and has
every sentence that a site says of its figures, `in_memory` carries them without bytes inside one process. Rows and
records are unknown here. `docs/messages.md` lists them all.
"""
