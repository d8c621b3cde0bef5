"""Messages between coordinator and site.

Nothing else crosses.

A class a message, with what it reveals about people (`Reveals:`), in the order of a run: `enrol`, `summarise`, `train`
(the rounds), `secure_sum` (where they are summed under masks), `compare`, then `audit` and `countersign`. `kinds` has
their names, `fields` reads and builds their sections, `in_memory` carries them without bytes inside one process,
`sentences` has every sentence that a site says. Rows and records are unknown here. `docs/messages.md` lists them all.
"""
