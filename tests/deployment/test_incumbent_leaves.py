"""Through the gate: figures of the score in use leave an institution with three digits, and only where asked for."""

import pytest

from flfed.deployment.gate import comparison_sections
from flfed.records.statistics import verdict
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.rows.evaluation.scoring import three_digits
from flfed.study.study import Study
from flfed.updates.messages.compare import CompareReply

FEATURES = ('name = "small"\n[model]', 'name = "small"\nfeatures = ["x1", "flag"]\n[model]')
INCUMBENT = ("[compare]\n", '[compare]\nincumbent = { column = "x2" }\n')


@pytest.mark.parametrize("asked", [True, False])
def test_the_score_in_use_leaves_only_where_the_study_names_it(gated, compared, small_study: str, asked: bool):
    text = small_study.replace(*FEATURES)
    if asked:
        text = text.replace(*INCUMBENT)
    reply = CompareReply.from_record(compared(gated(text, policy=Policy(), rows=1200)))
    arms = [one for one in reply.arms if one.arm == "incumbent"]
    pairs = [one for one in reply.differences if one.arm == "global - incumbent"]
    assert sorted(one.metric for one in arms) == ["average_precision_score", "roc_auc_score"] * asked
    assert len(pairs) == len(arms)
    assert all(one.value == three_digits(one.value) for one in [*arms, *pairs])


def test_every_model_that_leaves_has_a_name_for_people(small_sites, small_study: str):
    small_sites(1)
    study = Study.parse(small_study.replace(*FEATURES).replace(*INCUMBENT).replace('"same"', '"best"'))
    arms = comparison_sections._arms(study, datasets.load("small").schema.task)
    assert "incumbent" in arms
    assert arms <= set(verdict.ARM_NAMES)
