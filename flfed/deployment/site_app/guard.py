"""Who may see the app of a site: who has the token in the address that `flfed site app` prints."""

from __future__ import annotations

from flfed.deployment.site_app.access import TOKEN
from flfed.records.dashboard.token import Guard

GUARD = Guard(TOKEN, "flfed site app NAME")
