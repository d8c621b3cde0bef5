"""The bytes in a site's ledger are those that the coordinator's store has of it, round by round and kind by kind."""

import json

import pytest
import typer
from flwr.app import Message
from sqlalchemy import text

from flfed.cli.site.ledger import show_ledger
from flfed.paths import SiteFolder
from flfed.records.ledger import ledger_of
from flfed.records.store.database import engine_to_read, store_url
from flfed.updates.messages.in_memory import count_bytes

INT8 = '\n[codec]\nname = "int8"\n'


@pytest.mark.parametrize("codec", ["", INT8], ids=["none", "int8"])
def test_a_ledgers_bytes_are_those_of_the_coordinators_table(codec: str, small_sites, small_study, conduct, capsys):
    sites = small_sites(3, rows=90)
    folders = [SiteFolder(site.name) for site in sites]
    for folder in folders:
        folder.make()

    def leaving(reply: Message) -> Message:
        """Write down what a gate writes down of a reply that leaves."""
        kind, group = reply.metadata.message_type.rpartition(".")[2], reply.metadata.group_id
        line = {"run": "r1", "round": int(group) if group.isdigit() else 0, "bytes": count_bytes(reply.content)}
        ledger_of(folders[reply.metadata.src_node_id - 1]).append(kind=kind, **line)
        return reply

    done = conduct(sites, small_study + codec, change=leaving)
    assert done.error is None
    engine = engine_to_read(store_url())
    asked = text("SELECT site, round, kind, SUM(bytes) FROM sent WHERE direction = 'to-server' GROUP BY 1, 2, 3")
    with engine.connect() as connection:
        sent = {(site, round, kind): int(size) for site, round, kind, size in connection.execute(asked)}
    engine.dispose()
    app = typer.Typer()
    app.command()(show_ledger)
    held = {}
    for folder in folders:
        app([folder.site, "--run", "r1", "--json"], standalone_mode=False)
        for row in json.loads(capsys.readouterr().out)["rounds"]:
            held[folder.site, row["round"], row["kind"]] = row["bytes"]
    # The store has a question of no round at the last round that it saw, and names its message in full.
    last = max(round for _, round, _ in sent)
    told = {
        (site, last if kind == "compare" else round, kind if kind in ("train", "evaluate") else f"query.{kind}"): size
        for (site, round, kind), size in held.items()
    }
    assert told == sent
    assert {kind for _, _, kind in sent} == {"query.enrol", "query.summarise", "train", "evaluate", "query.compare"}
    assert sum(kind == "train" for _, _, kind in sent) == 15
    assert min(sent.values()) > 50
