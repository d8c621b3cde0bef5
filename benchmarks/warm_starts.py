"""Gain from the others' model for a hospital that joins late: `python -m benchmarks.methods --only warm-start`.

Three hospitals of heart-disease train a model without the fourth, over twenty random splits. The fourth has only some
of its training rows; on its test rows three models are judged: its own, tuned from scratch; one drawn to the others'
model on these rows; and the others' model as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from flfed.federation.engines.engine import find_sites
from flfed.federation.server.run import run
from flfed.records.statistics.intervals import resplit_interval
from flfed.records.store.reader import RunReader
from flfed.rows.baselines import pulled_linear
from flfed.rows.features.encode import encode
from flfed.rows.features.summarise import summarise
from flfed.rows.session import SiteSession
from flfed.rows.study_model import first_model
from flfed.rows.training.functional import layers_of
from flfed.rows.training.tuned_linear import Search, search_alone, search_of
from flfed.rows.warm_start import Source, rewritten
from flfed.study.study import Study
from flfed.summaries.summary import Summary, fit_encoder, merge
from flfed.updates.checkpoints import checkpoint as checkpoints

STUDY = "heart-disease"
HOSPITALS = ("cleveland", "hungary", "long-beach")
SIZES = (10, 20, 40, 80)
REPEATS = 20
QUICK = {"compare.site-model": "same", "compare.resamples": 200}
"""The comparison of the three hospitals is not looked at here."""
SCRATCH, DRAWN, AS_IS = "scratch", "drawn", "as-it-is"


def late_hospital(site: str, sizes: Sequence[int] = SIZES, repeats: int = REPEATS) -> dict[str, Any]:
    """Return by number of rows each model's mean AUC at a hospital, and its gains on scratch with intervals."""
    study, found, ratios = Study.load(STUDY), dict[int, list[dict[str, float]]](), []
    others = [one for one in find_sites(study) if one.name != site]
    # Of one seed more than there are splits: the first repeat is the sites' own holdouts.
    series = run(study.replace(QUICK), sites=others, repeats=repeats + 1).report["run"]
    with RunReader.open() as reader:
        runs = {entry.repeat: entry.run for entry in reader.runs_of(series)}
    for repeat in range(1, repeats + 1):
        places = {one.name: SiteSession(one, study, repeat) for one in find_sites(study)}
        late = places.pop(site)
        for size, aucs in _aucs(study, repeat, late, places, checkpoints.final(runs[repeat]), sizes):
            found.setdefault(size, []).append(aucs)
        ratios.append(len(late.table.holdout("compare")) / len(late.table.training))
    ratio = sum(ratios) / len(ratios)
    return {str(size): _told(splits, ratio) for size, splits in found.items()}


def _told(splits: Sequence[dict[str, float]], ratio: float) -> dict[str, Any]:
    told: dict[str, Any] = {arm: float(np.mean([aucs[arm] for aucs in splits])) for arm in splits[0]}
    for arm in (DRAWN, AS_IS):
        mean, low, high, p = resplit_interval([aucs[arm] - aucs[SCRATCH] for aucs in splits], ratio)
        told[f"gain-{arm}"] = {"value": mean, "low": low, "high": high, "p": p, "repeats": len(splits)}
    return told


def _aucs(
    study: Study,
    repeat: int,
    late: SiteSession,
    places: dict[str, SiteSession],
    trained: checkpoints.Checkpoint,
    sizes: Sequence[int],
) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield each number of rows, and the AUC of each model with it."""
    sums = {name: place.summary() for name, place in places.items()}
    layout, layers = late.layout, layers_of(late.model)
    source = Source(run="three hospitals", layout=layout, encoder=trained.encoder, layers=layers, arrays=trained.arrays)
    ((weight, bias),) = layers
    order = np.random.default_rng(repeat).permutation(len(late.table.training))
    tested = late.table.holdout("compare")
    y = late.target(tested)
    for size in sizes:
        few = late.table.training.iloc[order[:size]]
        few_sums: Summary = summarise(few, layout)
        own, every = fit_encoder(layout, few_sums), fit_encoder(layout, merge([*sums.values(), few_sums]))
        alone = search_of(encode(few, layout, own), late.task, late.classes, np.random.default_rng(repeat))
        if isinstance(alone, Search):
            alone = alone.finished(search_alone(alone))
        start = rewritten(source, first_model(study, late.schema, repeat), layout, every)
        drawn = pulled_linear(encode(few, layout, every), start[weight], start[bias], late.trainable())
        x = encode(tested, layout, every).x
        scores = {
            SCRATCH: alone(encode(tested, layout, own).x),
            DRAWN: drawn(x),
            AS_IS: x @ start[weight] + start[bias],
        }
        yield size, {arm: float(roc_auc_score(y, np.ravel(score))) for arm, score in scores.items()}
