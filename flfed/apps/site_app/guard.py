"""Who may see the app of a site: who has the token in the address that `flfed site app` prints."""

from __future__ import annotations

from flfed.apps.site_app.may_look import TOKEN
from flfed.records.dashboard.only_with_token import Guard

GUARD = Guard(TOKEN, "flfed site app NAME")
