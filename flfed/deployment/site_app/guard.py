"""Access guard of the app of a site.

Who has the token in the address that `flfed site app` prints may see it.
"""

from __future__ import annotations

from flfed.deployment.site_app.access import TOKEN
from flfed.records.dashboard.token import Guard

GUARD = Guard(TOKEN, "flfed site app NAME")
