"""What is told of a run of boosted trees: sums and not updates, and why no attack trains models beside them."""

from pathlib import Path

import pytest

from flfed import Study, run
from flfed.experiments.audit import audit
from flfed.records.reports.privacy_tables import CELLS, kind_in_words, why_so_many
from flfed.records.store.reader import RunReader
from flfed.updates.messages.kinds import BINS
from tests.boosting import trees_study


def test_a_run_of_trees_tells_of_its_sums_and_a_run_without_of_its_updates(small_sites, small_study):
    sites = small_sites(3, rows=120)
    grown, trained = (run(Study.parse(text), sites=sites).report for text in (trees_study(small_study), small_study))
    told = [found["privacy"]["uncharged"] for found in (grown, trained)]
    assert "They reveal the outcomes of single rows" in told[0][0] and "1,024 bins" in told[0][1]
    assert told[1][0].startswith("Each site's update of every round") and not set(told[0][:2]) & set(told[1])
    with RunReader.open() as reader:
        sent = [[of for of in reader.crossed([one["run"]]) if of.direction == "to-server"] for one in (grown, trained)]
    said = [why_so_many(of) for of in sent]
    assert (
        "each of which grew a tree: 8 from a site" in said[0]
        and "outcomes of single rows" in said[0]
        and "update" not in said[0]
    )
    assert "are updates of training, one a round" in said[1] and "tree" not in said[1]
    assert CELLS == BINS and kind_in_words(CELLS) == "rows by bin, for the cut points of trees"


@pytest.mark.studies
def test_attacks_that_train_models_say_why_they_cannot_on_trees(small_sites, small_study, home: Path):
    sites = small_sites(2, rows=120)
    name = run(Study.parse(trees_study(small_study, **{"strategy.rounds": 2})), sites=sites).run
    found = audit(name, sites=sites)
    said = {of.attack: of.payload["says"] for of in found.findings}
    for attack in ("membership-inference", "canaries"):
        assert said[attack].startswith("No figure: trees grow from the sums of all sites")
    assert found.faults == {}
