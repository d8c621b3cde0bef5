"""One site's work on one study whose table is larger than memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from flfed.refusals import Refusal
from flfed.rows.baselines import LocalModel, network_predictor
from flfed.rows.data import datasets
from flfed.rows.data.holdout import Holdout
from flfed.rows.data.parquet_blocks import is_streamed
from flfed.rows.data.site import Site, SiteTable
from flfed.rows.evaluation.scoring import CLOSE, is_count, metrics_of, primary_of, too_few
from flfed.rows.evaluation.streamed import AREA, ScoreSums
from flfed.rows.evaluation.weighted_metrics import SumMetric
from flfed.rows.features.encode import ColumnArrays, Encoded, EncodedBlocks, encode
from flfed.rows.features.summarise import disclose
from flfed.rows.session import SiteSession
from flfed.rows.streamed.table import FITTED, HOLDOUT, TRAINING, VALIDATION, StreamedTable
from flfed.rows.study_model import study_layout
from flfed.rows.training.functional import row_losses
from flfed.rows.training.requests import Asking
from flfed.rows.training.tuning.best_model import linear_family
from flfed.rows.training.tuning.linear import Predictor, tuned_on_blocks
from flfed.seeds import Draws, generator
from flfed.study.kinds import grows, is_statistic
from flfed.study.study import Study
from flfed.study.tables import SiteModelKind
from flfed.summaries.score_bins import EVEN_ODDS, RowScores, ScoreBins
from flfed.summaries.summary import Arrays, Encoder, Summary, arrays_sha256

MODEL = "model"
CHOOSING = 20_000
"""Most rows on which the penalty of an own model is chosen."""


@dataclass(frozen=True, eq=False)
class Part:
    """Rows of some sides of a streamed table, in place of a data frame of them."""

    table: StreamedTable
    sides: tuple[int, ...]

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.table.count(self.sides)


@dataclass(frozen=True, eq=False)
class Arm:
    """A model of a comparison: its encoder, its outputs, and what is added to them without a change of order."""

    encoder: Encoder
    outputs: Predictor
    shift: np.ndarray = field(default_factory=lambda: np.zeros(1))


@dataclass(frozen=True, eq=False)
class ScoredBlock:
    """Rows of a block with the scores of several models.

    Attributes
    ----------
    side, y, encoded : array [rows]
        Side of each row, its target, and the target as models are trained on it.
    odds, outputs, scores : dict of model to array
        What rows are ranked by, the outputs, and the predictions.
    """

    side: np.ndarray
    y: np.ndarray
    encoded: np.ndarray
    odds: Arrays
    outputs: Arrays
    scores: Arrays


@dataclass(eq=False)
class ScoredModel:
    """One model's sums by side, and how many of all rows have sure scores, or others than most.

    Attributes
    ----------
    key : tuple of str
        Hashes of arrays and encoder.
    losses : dict of side to float
        Summed.
    rows, sure, others : int
        Rows, those of a sure score, and those whose score is not that in the middle of the first block.
    """

    key: tuple[str, str]
    sums: dict[int, ScoreSums] = field(default_factory=dict)
    losses: dict[int, float] = field(default_factory=dict)
    rows: int = 0
    sure: int = 0
    others: int = 0
    middle: float | None = None

    def add(self, block: ScoredBlock, task: str, empty: Callable[[], ScoreSums]) -> None:
        """Add a block; `empty` makes the sums of a side that has none yet."""
        outputs = block.outputs[MODEL]
        score = outputs[:, 0] if task == "regression" else block.scores[MODEL]
        if self.middle is None:
            self.middle = float(np.median(score))
        self.rows += len(score)
        # Twice as far, for the middle of all rows may be as far from this one.
        self.others += int((np.abs(score - self.middle) > 2 * CLOSE).sum())
        if task != "regression":
            self.sure += int((np.maximum(score, 1 - score) >= 1 - CLOSE).sum())
        losses = row_losses(task, torch.from_numpy(outputs), torch.from_numpy(block.encoded)).numpy()
        for side in np.unique(block.side).tolist():
            own = block.side == side
            if side not in self.sums:
                self.sums[side] = empty()
            self.sums[side].add(block.y[own], {MODEL: block.odds[MODEL][own]}, {MODEL: block.scores[MODEL][own]})
            self.losses[side] = self.losses.get(side, 0.0) + float(losses[own].sum())


def streamed_refusal(study: Study, site: Site) -> Refusal | None:
    """Return the refusal of a study that needs all rows of a streamed table at once, or None.

    No row is read.
    """
    schema = datasets.load(study.dataset.name).schema
    compare = study.compare
    linear = not grows(study) and study.model.build("model").linear
    primary = primary_of(schema.task, compare.primary, compare.alert_budget)
    metric = metrics_of(schema.task, compare.alert_budget)[primary]
    needs = {
        "a statistic": is_statistic(study),
        "a forest of boosted trees": grows(study),
        "a network": not linear,
        "an outcome of several classes": schema.task == "multi-class",
        "a person with several rows": bool(schema.group),
        "differential privacy of rows": study.privacy.name not in ("none", "site-dp"),
        "a holdout in the order of time": not isinstance(site.holdout, Holdout),
        "a published split": bool(study.split.fixed),
        "a model of an earlier run": bool(study.warm_start),
        f"metric {primary} as the primary one": primary != AREA and not isinstance(metric, SumMetric),
        "a count at a threshold": bool(compare.points),
        "a figure by subgroup": bool(compare.subgroups),
        "a rank within steps": bool(compare.rank_within),
        "the importance of columns": bool(compare.importance),
        "a column of the site alone": compare.site_columns,
        "a comparison with earlier releases": not site.policy.is_open,
    }
    asked = [part for part, is_asked in needs.items() if is_asked]
    return Refusal("streamed-needs", part=asked[0]) if asked and is_streamed(site) else None


class StreamedSession(SiteSession):
    """One site's side of one study, whose rows are read again in each pass.

    Parameters are those of `SiteSession`, without a table.
    """

    def __init__(self, site: Site, study: Study, repeat: int = 0, *, draws: Draws | None = None) -> None:
        schema = datasets.load(study.dataset.name).schema
        drawn = repeat if site.policy.resplit else 0
        self.rows = StreamedTable(site, study, study_layout(study, schema), study.seed + repeat, drawn)
        training: Any = Part(self.rows, TRAINING)
        holdout: Any = Part(self.rows, (HOLDOUT,))
        table = SiteTable(training=training, schema=schema, _holdout=holdout)
        super().__init__(site, study, repeat, table=table, draws=draws)

    def __post_init__(self) -> None:
        """Count the validation rows."""
        self._last: ScoredModel | None = None
        self._validation_rows = self.rows.count([VALIDATION])

    @cached_property
    def exact_summary(self) -> Summary:
        """The exact sums over training rows."""
        return self.rows.summary(TRAINING)

    def summary(self) -> Summary:
        """Return the sums over training rows that may leave."""
        return self._disclosed(self.exact_summary)

    def holdout_summary(self) -> Summary | None:
        """Return the holdout sums that may leave, None if too small."""
        if self.rows.count([HOLDOUT]) < self.policy.least_rows():
            return None
        return self._disclosed(self.rows.summary([HOLDOUT]))

    def _disclosed(self, exact: Summary) -> Summary:
        return exact if self.policy.is_open else disclose(exact, self.layout, self.policy.cell_minimum)

    def encode(self, table: Any, encoder: Encoder) -> Any:
        """Return the rows of a part, encoded block by block in each pass."""
        if not isinstance(table, Part):
            return self._encoded_block(table, encoder)

        def blocks(rng: np.random.Generator | None) -> Iterator[Encoded]:
            for rows, _ in self.rows.blocks(table.sides, rng):
                yield self._encoded_block(rows, encoder)

        return EncodedBlocks(len(table), blocks)

    def _encoded_block(self, rows: ColumnArrays, encoder: Encoder) -> Encoded:
        return encode(rows, self.layout, encoder, weighted=self.study.plan.class_weight == "balanced")

    def training(self, encoder: Encoder) -> Encoded:
        """Return a sample of the training rows, by which a model is adjusted to the site."""
        return self._encoded_block(self.rows.sample, self.in_use(encoder))

    def round_rows(self, encoder: Encoder) -> tuple[Any, Any]:
        """Return the rows to train on and to score, in blocks."""
        sides = [(FITTED,), (VALIDATION,)] if self._validation_rows else [TRAINING, TRAINING]
        fitted, scored = (self.encode(Part(self.rows, part), self.in_use(encoder)) for part in sides)
        return fitted, scored

    model_rows = round_rows

    def local_model(self, own: SiteModelKind | None = None) -> Asking[LocalModel]:
        """Tune a linear model on this site's training rows alone, which is made once.

        Its penalty is chosen on `CHOOSING` rows of the sample at most; all rows are fitted.
        """
        own = own or self.study.compare.site_model
        if own not in self._local:
            encoder = self.own_encoder()
            sample = self._encoded_block(self.rows.sample, encoder)
            few = sample.take(np.arange(0, len(sample), -(-len(sample) // CHOOSING)))
            rng = generator(self.seed, site=self.site.name, purpose="folds")
            family = linear_family(self.task) if own == "best" else None
            model = tuned_on_blocks(self.encode(self.table.training, encoder), few, self.task, rng)
            self._local[own] = LocalModel(encoder, model, family)
        return self._local[own]
        yield  # a handler is a generator, also one without requests

    def measured(
        self, kind: str, table: Any, arrays: Arrays, encoder: Encoder, rows: Any, model: Any = None
    ) -> Asking[RowScores]:
        """Score rows of a kind and return the scores that may leave."""
        side = VALIDATION if kind == "validation" else FITTED
        scored = self.scored(arrays, encoder)
        sums = scored.sums[side]
        mean = scored.losses[side] / sums.rows
        metrics = {}
        variances = {}
        if not too_few(sums.example(), self.task, self.classes, self.policy):
            metrics["loss"] = mean
            once = is_count(self.primary, self.task) and not self.policy.is_open
            if not once and not self.metrics[self.primary].defined(sums.example()):
                metrics[self.primary], variances[self.primary] = sums.value(self.primary, MODEL)
        counts = None
        if self.task == "binary" and self.policy.allows("score-histogram"):
            counts = sums.histogram(MODEL)
        loss = mean if sums.rows >= self.policy.least_rows() else None
        return RowScores(
            rows=kind, num_examples=sums.rows, metrics=metrics, variances=variances, histogram=counts, loss=loss
        )
        yield  # as above

    def arms(self, arrays: Arrays, encoder: Encoder, sd: float | None = None) -> Asking[dict[str, Arm]]:
        """Yield requests and return the models of a comparison by name."""
        arrays = self.own_arrays.at_site(arrays)
        shared = self.in_use(encoder)
        outputs = network_predictor(self.model, arrays)
        local = yield from self.local_model()
        if self.own_arrays.model is not None:
            personal = Arm(shared, network_predictor(self.model, self.own_arrays.model))
        else:
            rows = self.training(encoder)
            adjusted = yield from self.personalised(arrays, encoder, sd)
            personal = Arm(shared, outputs, adjusted(rows.x[:1]) - outputs(rows.x[:1]))
        own = Arm(local.encoder, local.outputs)
        models = {"global": Arm(shared, outputs), "local-only": own, "personalised": personal}
        if self.study.compare.site_model == "best":
            models["local-only-same"] = own
        return models

    def compared(self, arms: Mapping[str, Arm], bins: ScoreBins) -> ScoreSums:
        """Return the sums over holdout rows of models, in two passes."""
        sums = empty_sums(self, self.metrics, list(arms), bins)
        for block in scored_blocks(self, (HOLDOUT,), arms):
            sums.add(block.y, block.odds, block.scores)
        if self.task == "binary":
            for block in scored_blocks(self, (HOLDOUT,), arms):
                sums.add_pairs(block.y, block.odds)
        return sums

    def scored(self, arrays: Arrays, encoder: Encoder) -> ScoredModel:
        """Return one model's sums over all rows, by side; those of the last model are kept."""
        key = (arrays_sha256(dict(arrays)), encoder.sha256())
        if self._last is None or self._last.key != key:
            metrics = {name: one for name, one in self.metrics.items() if name == self.primary}
            scored = ScoredModel(key)
            arm = Arm(self.in_use(encoder), network_predictor(self.model, arrays))
            for block in scored_blocks(self, (*TRAINING, HOLDOUT), {MODEL: arm}):
                scored.add(block, self.task, partial(empty_sums, self, metrics, [MODEL]))
            self._last = scored
        return self._last


def empty_sums(
    session: SiteSession, metrics: Mapping[str, Any], arms: Sequence[str], bins: ScoreBins = EVEN_ODDS
) -> ScoreSums:
    """Return sums of models' scores, without a row."""
    centre = float(session.own_encoder().center[-1]) if session.task == "regression" else 0.0
    return ScoreSums(session.task, metrics, arms, bins, centre)


def scored_blocks(session: SiteSession, sides: Sequence[int], arms: Mapping[str, Arm]) -> Iterator[ScoredBlock]:
    """Yield the scored rows of some sides in one pass; of a site in memory its holdout."""
    if isinstance(session, StreamedSession):
        blocks = session.rows.blocks(sides)
    else:
        rows = session.coded(session.table.holdout("compare"))
        blocks = iter([(rows, np.full(rows.rows, HOLDOUT))])
    for rows, side in blocks:
        encoded: dict[int, Encoded] = {}
        odds = {}
        outputs = {}
        scores = {}
        for name, arm in arms.items():
            if id(arm.encoder) not in encoded:
                encoded[id(arm.encoder)] = encode(rows, session.layout, arm.encoder)
            own = encoded[id(arm.encoder)]
            out = arm.outputs(own.x)
            odds[name] = out[:, 0]
            outputs[name] = out + arm.shift
            scores[name] = session.predictions(outputs[name], arm.encoder)
        target = rows.values[session.schema.target] if session.task == "regression" else own.y
        yield ScoredBlock(side, target, own.y, odds, outputs, scores)
