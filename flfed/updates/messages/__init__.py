"""Messages between coordinator and site.

Nothing else crosses.

A class a message, with what it reveals about people (`Reveals:`); `fields` reads and builds their sections, `in_memory`
carries them without bytes inside one process, `sentences` has every sentence that a site says. Rows and records are
unknown here.
"""
