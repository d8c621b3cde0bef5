"""`flfed site purge` at a real consortium: no piece of a run is left at the site, and no record of it is lost."""

from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from tests.consortium.test_one_epsilon import ANALYSIS, serve_with_budget, spent
from tests.consortium.test_packed_bytes import THREE
from tests.consortium.test_secure_sums import command, words

pytestmark = [pytest.mark.proof, pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(900)]

PIECE = 64
OWN_PART = (
    ("epochs = 1", "steps = 4"), ('name = "fedavg"', 'name = "fedper"'),
    ('name = "logistic"', 'name = "mlp"\nhidden = [8]'),
    ("[compare]", '[privacy]\nname = "record-dp"\nepsilon = 3.0\ndelta = 1e-5\n[compare]'),
)  # fmt: skip
"""A model of which each site has a part of its own: so each keeps the whole."""


def pieces(path: Path) -> list[bytes]:
    """Return the whole pieces of a file's content, without a header of names and text and without runs of zeros."""
    content = path.read_bytes()
    start = 0
    if path.suffix == ".safetensors":
        start = 8 + int.from_bytes(content[:8], "little")
    cut = [content[at : at + PIECE] for at in range(start, len(content) - PIECE + 1, PIECE)]
    return [piece for piece in cut if len(set(piece)) > 8]


def present(home: Path, wanted: list[bytes]) -> int:
    """Count the pieces that are in any file below a folder."""
    contents = [path.read_bytes() for path in home.rglob("*") if path.is_file()]
    return sum(any(piece in content for content in contents) for piece in wanted)


def test_no_piece_of_a_purged_run_is_left_and_its_noised_answer_is_sent_again_uncharged(consortium: Any):
    study = consortium.study(*OWN_PART)
    serve_with_budget(consortium, 20, (ANALYSIS, study))
    analysis, _ = command(consortium, words(consortium, ANALYSIS, THREE))
    ran, said = command(consortium, words(consortium, study, THREE))
    assert ran["status"] == "completed", said

    alpha = consortium.sites["alpha"]
    site = alpha.home / "sites" / "alpha"
    run = ran["run"]
    arrays = list((site / "models").glob(f"{run}-*"))
    of_run = list(chain.from_iterable(map(pieces, arrays)))
    of_rows = pieces(consortium.rows("alpha"))
    # The model is there, and a snapshot.
    assert len(arrays) == 1 and of_run
    assert present(alpha.home, of_run + of_rows) == len(of_run + of_rows) > 100

    # Without --yes the command only lists; another run keeps its files.
    looked = alpha.json(f"site purge alpha {run}")
    assert not looked["removed"] and len(looked["paths"]) >= 2
    assert present(alpha.home, of_run) == len(of_run)
    done = alpha.json(f"site purge alpha {run} --yes")
    assert done["removed"] and done["runs"] == [run] and done["paths"] == looked["paths"]
    assert present(alpha.home, of_run) == 0
    # The approvals need the snapshot, and a noised answer of these rows is there.
    assert len(done["needed-by"]) == 2 and present(alpha.home, of_rows) == len(of_rows)
    before = spent(consortium, "alpha")

    # A run whose state is there is refused while its study is approved.
    state = site / "runs" / run
    state.mkdir()
    assert "under way" in alpha.run(f"site purge alpha {run} --yes", code=2)
    for study in {line["study"] for line in alpha.lines() if line.get("study")}:
        alpha.run(f"site withdraw {study} --site alpha")
        alpha.run(f"site purge alpha '{study}' --yes")
    assert not state.exists() and present(alpha.home, of_rows) == 0
    assert alpha.json("site ledger alpha --verify")["problems"] == []
    assert spent(consortium, "alpha") == before
    assert (alpha.gate / "state.db").exists()
    assert "no run and no study" in alpha.run("site purge alpha nothing --yes", code=2)
