"""What is asked past the sums of a study that was approved with them: updates, figures, and a ledger begun anew."""

import math
import re
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, RecordDict

from flfed.deployment.gate import gate
from flfed.deployment.gate.run_limits import RunLimits
from flfed.deployment.site_state import ledger_loss
from flfed.federation.client.site_run import SiteRun
from flfed.paths import home
from flfed.records.ledger_line import Line
from flfed.refusals import Refusal
from flfed.updates.masking import rules
from flfed.updates.messages.compare import COMPARE, CompareRequest
from flfed.updates.messages.train import EVALUATE, TRAIN, TrainRequest
from tests.deployment.gate_scene import GateScene
from tests.updates.masking import attacks
from tests.updates.masking.attacks import ASKED, exchange
from tests.updates.masking.play import Request

Make = Callable[..., GateScene]
TWO_LISTS = "this question was answered with another list of sites before"


def said(reply: Message) -> str:
    return (reply.error.reason or "") if reply.has_error() else ""


def no_sums(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SiteRun, "sums", lambda own, study: None)


def test_a_study_that_was_approved_with_sums_gets_no_plain_update(scene: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    found = scene(4, 1)
    asked = found.request(1, ASKED)
    assert "key of this run is not here" in said(found.ask(1, 0, "site-01", TRAIN, asked))
    # Two walls: what would be a plain update all the same is held back, since it is none of the approved study.
    no_sums(monkeypatch)
    assert "its train reply is held back" in said(found.ask(2, 0, "site-01", TRAIN, asked))
    monkeypatch.setattr(gate.Gate, "leaving", lambda own, message, reply, *given: reply)
    assert np.abs(found.ask(3, 0, "site-01", TRAIN, asked).content["arrays"]["weight"].numpy()).max() > 0


def other_requests(found: GateScene) -> dict[str, TrainRequest]:
    first = found.request(1, ASKED)
    return {
        "'round' that does not fit": replace(first, round=found.study.rounds + 1),
        "'rounds' that does not fit": replace(first, rounds=9),
        "'lr-scale' that does not fit": replace(first, lr_scale=2.0),
        "'fit' that does not fit": replace(first, fit=False),
        "it has 1 section too many": replace(first, settings={"mu": 1.0}),
        "'weight' of another shape": replace(
            first, arrays={name: np.zeros((*value.shape, 1)) for name, value in first.arrays.items()}
        ),
    }


def test_a_round_or_scale_that_was_not_approved_is_not_answered(scene: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    found = scene(4, 1)
    found.enter(1, found.all)
    for text, request in other_requests(found).items():
        assert text in said(found.ask(1, 0, "site-01", TRAIN, request)), text
    monkeypatch.setattr(gate, "message_defect", lambda record, sections: None)
    later = replace(found.request(1, ASKED), round=found.study.rounds + 1)
    assert "masked" in found.ask(1, 0, "site-01", TRAIN, later).content


@pytest.mark.parametrize("kind", [EVALUATE, COMPARE])
def test_a_second_model_is_neither_evaluated_nor_compared(scene, kind, monkeypatch):
    found = scene(4, 1)
    found.enter(1, found.all)
    asked = {}
    for model in ("model", "next"):
        made = found.request(found.study.rounds + 1, Request("train", model), fit=False)
        asked[model] = made if kind == EVALUATE else CompareRequest(arrays=made.arrays, encoder=made.encoder)
    word = "evaluate" if kind == EVALUATE else "compare"
    for model, text in (("model", ""), ("next", f"it was asked to {word} another model in this run"), ("model", "")):
        assert said(found.ask(1, 0, "site-01", kind, asked[model])) == text
    monkeypatch.setattr(RunLimits, "refusal", lambda *_: None)
    # The losses of a model that is scored have masks, which are drawn once.
    masks = "a masked answer to round 4 left before, and it is not here any more: begin the run anew"
    assert said(found.ask(1, 0, "site-01", kind, asked["next"])) == (masks if kind == EVALUATE else "")


def begun_anew(scene: GateScene) -> None:
    """Have each site begin its ledger anew after a line of it was damaged, and go on with it."""
    for name in scene.honest:
        folder = scene.gated.folders[name]
        first, *others = folder.ledger.read_bytes().splitlines(keepends=True)
        folder.ledger.write_bytes(first.replace(b'"kind":"enrol"', b'"kind":"lorne"') + b"".join(others))
        ledger_loss.restart(folder, by="op", why="a damaged line")
        scene.gated.approve(name)
        scene.gated.restart(name)


def test_lists_outlive_a_ledger_that_is_begun_anew(scene: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def play() -> GateScene:
        found = scene(4, 1)
        attacks.whole(found, exchange())
        begun_anew(found)
        attacks.without_first(found, exchange(number=2))
        attacks.without_first(found, exchange(run=2))
        return found

    found = play()
    texts = [text for text in found.said if "share" not in text]
    # The run of then is over, and a new one opens the list of then alone.
    assert not found.lost and all(TWO_LISTS in text or Refusal("run-ended") in text for text in texts)
    assert any(TWO_LISTS in text for text in texts) and any(Refusal("run-ended") in text for text in texts)
    assert found.add_up(exchange(run=2), found.all) == 3
    # Of a ledger of which nothing is left no list is known: then only that of all pinned sites is opened.
    monkeypatch.setattr(ledger_loss, "_comes_over", lambda *_: False)
    found = play()
    texts = [text for text in found.said if "share" not in text]
    assert not found.lost and all(Refusal("list-after-loss") in text or Refusal("run-ended") in text for text in texts)
    assert found.said and found.add_up(exchange(run=2), found.all) == 3
    monkeypatch.setattr(Line, "follows_loss", False)
    found = play()
    assert found.fewest() == 1 and found.bare()["site-01"] < 1e-4


# Figures with so many digits that two are the same number only where one is the other.
LONG = re.compile(r"-?\d+\.\d{9,}(?:e-?\d+)?")


def long_numbers(found: Any) -> Iterator[float]:
    """Yield all numbers with many digits in a record, or in a row of a table."""
    if isinstance(found, RecordDict):
        for name in found.array_records:
            for array in found[name].values():
                yield from (float(one) for one in array.numpy().ravel() if LONG.fullmatch(repr(float(one))))
        for of in (found.metric_records, found.config_records):
            for name in of:
                yield from (one for value in found[name].values() for one in long_numbers(value))
    elif isinstance(found, (list, tuple)):
        yield from (one for part in found for one in long_numbers(part))
    elif not isinstance(found, bytes):
        yield from map(float, LONG.findall(repr(found) if isinstance(found, float) else str(found)))


def stored() -> list[float]:
    """Return all numbers with many digits in the coordinator's database."""
    with sqlite3.connect(home() / "runs.db") as store:
        tables = [name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return [one for table in tables for row in store.execute(f"SELECT * FROM {table}") for one in long_numbers(row)]


Figures = dict[tuple[str, str, int], dict[str, float]]
"""By kind, name and number of its message, the figure of each site."""


def watched(monkeypatch: pytest.MonkeyPatch, *, plant: bool) -> Figures:
    """Note the figures of each site before the gate takes those out that stay; with a fault planted, none stays."""
    figures: Figures = {}
    real = gate.without_figures

    def noted(message: Message, reply: Message, **given: Any) -> Message:
        kind, record = message.metadata.message_type, reply.content
        named = {
            f"{section}/{name}": value
            for section in record.metric_records
            for name, value in record[section].items()
            if isinstance(value, float) and LONG.fullmatch(repr(value))
        }
        for section in {"arms", "differences"} & set(record.config_records):
            values = [one for column in record[section].values() for one in long_numbers(column)]
            named |= {f"{section}/{place}": value for place, value in enumerate(values)}
        for name, numbers in ((name, record[name]) for name in record.array_records if name == "summary"):
            named |= {f"{name}/{key}": float(numbers[key].numpy().ravel()[0]) for key in numbers}
        for name, value in named.items():
            sites = figures.setdefault((kind, name, int(message.metadata.group_id or 0)), {})
            sites[f"{message.metadata.dst_node_id}"] = value
        return reply if plant else real(message, reply, **given)

    monkeypatch.setattr(gate, "without_figures", noted)
    return figures


def by_subtraction(value: float, figures: dict[str, float], hidden: str, weights: list[dict[str, float]]) -> bool:
    """Tell whether a number is a figure of a hidden site, or a mean of which those of the others leave it over."""
    others = figures.keys() - {hidden}
    means = [value]
    for weight in weights:
        whole = sum(weight[site] for site in figures)
        means.append((value * whole - sum(weight[site] * figures[site] for site in others)) / weight[hidden])
    return any(math.isclose(mean, figures[hidden], rel_tol=1e-7) for mean in means)


def test_a_question_is_answered_under_other_pinned_sites_only_where_an_honest_one_sees_both_lists(scene, monkeypatch):
    first = scene(4, 1)
    assert first.train(exchange(), ASKED) == 3
    # Another study has the same question, and another key is pinned for a site of the server's under another name.
    study = first.study.replace({"name": "other"})
    second = GateScene(list(first.gated.sites.values()), study, monkeypatch, 2)
    with monkeypatch.context() as patch:
        patch.setattr(rules, "have_honest_opener", lambda pinned, before: set(pinned) == set(before))
        assert second.train(exchange(run=2), ASKED) == 0
        assert "this question was answered with other pinned sites before" in second.said[-1]
    assert second.train(exchange(run=2), ASKED) == 3
