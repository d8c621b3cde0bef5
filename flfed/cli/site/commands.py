"""The commands of `flfed site`, by the panel of its help."""

from __future__ import annotations

from collections.abc import Callable

from flfed.cli.site import approve, join, ledger, mapping, models, rows, serve, setup
from flfed.cli.site.rows import EVERY_DAY, SETTING_UP
from flfed.packages import strictly

app = rows.app
COMMANDS: dict[str, tuple[tuple[str, Callable[..., None], str], ...]] = {
    EVERY_DAY: (
        ("approve", approve.approve_study, "heart-disease --site cleveland --with hungary,switzerland"),
        ("serve", serve.serve_site, "cleveland"),
        ("status", approve.site_status, "cleveland"),
        ("app", serve.open_site_app, "cleveland"),
    ),
    SETTING_UP: (
        ("setup", setup.set_up_site, "--kit cleveland.kit.zip --study heart-disease --with hungary,switzerland"),
        ("join", join.join_site, "cleveland.kit.zip"),
        ("key", join.show_key, "cleveland"),
        ("cards", join.compare_cards, "cleveland consortium.cards"),
        ("snapshot", rows.snapshot_rows, "cleveland"),
        ("proxy", join.change_proxy, "cleveland http://proxy.st-mary.example:3128 --password-file proxy.password"),
        ("units", serve.write_units, "cleveland --output units"),
    ),
    "Rarely": (
        ("pause", approve.pause_site, "cleveland"),
        ("withdraw", approve.withdraw_study, "heart-disease --site cleveland"),
        ("allow", approve.allow_runs, "heart-disease --runs 5 --site cleveland"),
        ("refresh", rows.refresh_rows, "cleveland"),
        ("ledger", ledger.show_ledger, "cleveland --verify"),
        ("budget", models.show_budget, "cleveland"),
        ("model", models.take_model, "cleveland RUN --output my-model"),
        ("models", models.list_models, "cleveland --people asked.csv"),
        ("purge", ledger.purge_records, "cleveland RUN"),
    ),
}
app.command("map", epilog="st-mary", rich_help_panel=SETTING_UP)(mapping.map_site)
for panel, commands in COMMANDS.items():
    for name, command, example in commands:
        app.command(name, epilog=example, rich_help_panel=panel)(strictly()(command))
