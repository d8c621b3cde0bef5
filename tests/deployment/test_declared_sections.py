"""What parts declare of messages: data, which the gate's own checker reads, and no code of theirs."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, RecordDict

from flfed.deployment.gate.message_check import fits, message_defect
from flfed.deployment.gate.message_schema import StudyMessages
from flfed.deployment.site_state.cohorts import cohort_facts
from flfed.rows.data import datasets
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Csv
from flfed.study.study import Study
from flfed.updates.codec import Codec
from flfed.updates.messages.kinds import COMPARE, EVALUATE, KINDS, SUMMARISE, TRAIN
from flfed.updates.messages.secure_sum import SECTION
from flfed.updates.sections import (
    ArrayField,
    ArraySection,
    Field,
    byte_string,
    equal,
    list_of,
    number,
    text,
    whole,
    whole_float,
)

STUDIES = ("breast-cancer", "taiwan-credit-trees", "breast-cancer-dp-3", "heart-disease")


def values_of(declared: object) -> Iterator[object]:
    """Yield all that a declaration is made of."""
    if dataclasses.is_dataclass(declared) and not isinstance(declared, type):
        for name in declared.__dataclass_fields__:
            yield from values_of(getattr(declared, name))
    elif isinstance(declared, Mapping):
        for value in declared.values():
            yield from values_of(value)
    elif isinstance(declared, (tuple, frozenset)):
        for value in declared:
            yield from values_of(value)
    else:
        yield declared


FOUR = cohort_facts(dict.fromkeys(("site-01", "site-02", "site-03", "site-04"), ""), changed=False)


@pytest.mark.parametrize("cohort", [{}, FOUR], ids=["alone", "in sums"])
@pytest.mark.parametrize("name", STUDIES)
def test_a_declaration_is_data(name: str, cohort: dict[str, Any]):
    messages = messages_of(Study.load(name), cohort)
    seen = 0
    for kind in KINDS:
        if kind == "query.statistic":
            continue
        for sections in (messages.incoming(kind), messages.leaving(kind)):
            for value in values_of(sections):
                seen += 1
                if not isinstance(value, (type, np.dtype, np.ndarray, Codec)):
                    assert not callable(value), (kind, value)
    assert seen > 200
    # The walk does find code.
    assert any(callable(value) for value in values_of({"planted": (lambda value: True,)}))


@pytest.mark.parametrize(("field", "right", "wrong"), [
    (equal(1.0), [1.0], [1, True, 1.5, "1.0"]), (equal(True), [True], [1, 1.0, False]),
    (whole(1, 5), [1, 5], [0, 6, 1.0, True]), (whole(10, beside=-1), [10, -1], [9, 0, -2, -1.0]),
    (whole(), [0, 2**53], [2**53 + 1, -1]),
    (number(0), [0, 0.5, 2**53], [-0.5, float("nan"), float("inf"), 2**53 + 1, True]),
    (number(nan=True), [float("nan"), -3.5], [float("inf"), "nan"]),
    (whole_float(4), [0.0, 4.0], [4, 0.5, 5.0, -1.0, float("nan")]),
    (text("[a-c]*", 3), ["", "abc"], ["abca", "d", "ab\n", b"a"]),
    (byte_string(3, 2), [b"ab", b"abc"], [b"a", b"abcd", "ab"]),
    (list_of(byte_string(2, 2), 2), [[], [b"ab", b"cd"]], [[b"a"], [b"ab"] * 3, b"ab"]),
])  # fmt: skip
def test_a_value_fits_what_is_declared_of_it(field: Field, right: list[object], wrong: list[object]):
    assert [value for value in right if not fits(field, value)] == []
    assert [value for value in wrong if fits(field, value)] == []


def test_a_codec_packs_the_update_and_not_the_model_that_is_compared():
    study = Study.load("breast-cancer").replace({"codec.name": "int8"})
    schema = datasets.load(study.dataset.name).schema
    site = Site(name="site-01", dataset=study.dataset.name, source=Csv("table.csv"))
    messages = StudyMessages(study, schema, site)
    assert set(messages.incoming(COMPARE)["arrays"].arrays) == set(messages.model)
    packed = messages.leaving(TRAIN)["arrays"]
    assert packed.codec is not None and packed.packed == messages.model


def test_only_a_table_without_rows_may_have_any_columns():
    whole = np.dtype(np.int64)
    level = ArrayField(shape=(2, 3, 2), dtype=whole, others=(((0, 0, 2), (2, 3, 2)),))
    codes = ArrayField(shape=(4, 32), dtype=whole, others=(((0, 32), (4, 32)),))

    def defect(array: ArrayField, shape: tuple[int, ...]) -> object:
        record = RecordDict({"extra": ArrayRecord({"sums": Array(np.zeros(shape, np.int64))})})
        return message_defect(record, {"extra": ArraySection(arrays={"sums": array})})

    assert defect(level, (0, 3, 2)) is defect(level, (1, 2, 2)) is None
    assert "of another shape" in str(defect(level, (0, 3, 3)))
    assert defect(codes, (0, 0)) is defect(codes, (2, 32)) is None
    assert "of another shape" in str(defect(codes, (2, 31)))


def messages_of(study: Study, cohort: Mapping[str, Any] | None = None) -> StudyMessages:
    schema = datasets.load(study.dataset.name).schema
    site = Site(name="site-01", dataset=study.dataset.name, source=Csv("table.csv"))
    return StudyMessages(study, schema, site, cohort or {})


def in_sums(name: str) -> Study:
    return Study.load(name).replace({"privacy.secure-aggregation": "on"})


def test_a_round_of_a_covered_study_brings_neither_loss_nor_scores():
    charged = Study.load("breast-cancer-dp-3")
    covered = messages_of(charged.replace({"privacy.covers": "study"})).leaving(TRAIN)
    assert set(covered) == {"config", "arrays", "metrics"}
    assert set(covered["metrics"].fields) == {"num-examples", "steps"}
    assert "loss" in messages_of(charged).leaving(TRAIN)["metrics"].fields


@pytest.mark.parametrize("kind", [TRAIN, EVALUATE])
def test_a_round_whose_figures_stay_has_no_place_for_them(kind: str):
    study = in_sums("breast-cancer")
    masked = messages_of(study, FOUR).leaving(kind)
    assert set(masked) == {"config", "metrics", SECTION}
    assert set(masked["metrics"].fields) == {"num-examples", "steps"}
    assert "loss" in messages_of(study).leaving(kind)["metrics"].fields


def test_on_a_plateau_alone_the_coordinator_scales_the_learning_rate():
    study = Study.load("breast-cancer")
    plateau = study.replace({"plan.schedule": "plateau", "plan.validation": 0.2})
    for asked, half in ((study, False), (plateau, True)):
        scale = messages_of(asked).incoming(TRAIN)["config"].fields["lr-scale"]
        assert [fits(scale, value) for value in (1.0, 0.5, 2.0)] == [True, half, False]


def test_sums_over_rows_that_are_masked_have_no_place_for_plain_ones():
    messages = messages_of(in_sums("breast-cancer"), FOUR)
    assert set(messages.leaving(SUMMARISE)) == {"config", SECTION}


def test_a_covered_run_asks_for_no_exact_sums_scores_or_comparison():
    study = Study.load("breast-cancer-dp-3").replace({"privacy.covers": "study"})
    assert {SUMMARISE, EVALUATE, COMPARE}.isdisjoint(messages_of(study).exchanges.once)
