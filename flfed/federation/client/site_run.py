"""A site's part of one run.

It has the state there, its half of the run's sums, and facts of the study's text.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, lru_cache

from flwr.app import Context

from flfed import registry
from flfed.federation.client.masked import Approving, RunKeys, SiteSums, SumApproval
from flfed.federation.client.verified_steps import Request, completed
from flfed.refusals import decline
from flfed.rows.data import datasets
from flfed.rows.own_parts import OwnArrays
from flfed.rows.session import SiteSession
from flfed.rows.study_model import model_shapes
from flfed.rows.warm_start import FindSource, no_source, rewritten
from flfed.study.study import Study
from flfed.summaries.summary import Encoder, arrays_sha256
from flfed.updates.arrays import Arrays, Shapes, arrays_defect
from flfed.updates.checkpoints.site_state import RunState, SiteModel, site_model
from flfed.updates.extra import ExtraShapes, extra_shapes, own_arrays
from flfed.updates.messages.compare import CompareRequest
from flfed.updates.strategies.fedavg import FedAvg


@lru_cache(maxsize=8)
def study_of(text: str) -> Study:
    """Return a parsed study.

    It is parsed once for all sites of one process.
    """
    return Study.parse(text)


@lru_cache(maxsize=64)
def model_shapes_of(text: str) -> Shapes:
    """Return shape and type of each array of a study's model."""
    study = study_of(text)
    return model_shapes(study, datasets.load(study.dataset.name).schema)


@lru_cache(maxsize=64)
def extra_shapes_of(text: str) -> ExtraShapes:
    """Return the arrays that a study's strategy has beside the model."""
    return extra_shapes(study_of(text), model_shapes_of(text))


@cache
def strategy_class(name: str) -> type[FedAvg]:
    """Return the class of a strategy.

    Its client half is in the same file as the server's.
    """
    strategy: type[FedAvg] = registry.load("strategy", name)
    return strategy


def run_of(context: Context) -> str:
    """Return the run of a message's context.

    Where sites store no reply it is named for their ledgers alone.
    """
    return str(context.run_config.get("run") or context.run_config.get("run-here", ""))


@dataclass(frozen=True, kw_only=True, eq=False)
class SiteRun:
    """A site's state of one run.

    It has the name, the arrays, and the approval of secure sums.

    Attributes
    ----------
    site, run : str
    repeat : int
    state : RunState
    approving : callable (study) → SumApproval or None, optional
        None where no institution's gate protects the site.
    rows : str
        Version of the site's rows, where they may change.
    source : callable (study) → Source or None
        The site's copy of the model that a study begins from.
    """

    site: str
    run: str
    repeat: int
    state: RunState
    approving: Approving | None
    rows: str = ""
    source: FindSource = no_source

    @classmethod
    def of(
        cls,
        context: Context,
        state: RunState,
        approving: Approving | None,
        rows: str = "",
        source: FindSource = no_source,
    ) -> SiteRun:
        """Return the run that a message belongs to."""
        site = str(context.node_config["site"])
        repeat = int(context.run_config.get("repeat", 0))
        run = run_of(context)
        return cls(site=site, run=run, repeat=repeat, state=state, approving=approving, rows=rows, source=source)

    def under(self, session: SiteSession) -> str:
        """Return the facts besides its request on which a stored answer depends.

        They are seed, rows, policy and study.
        """
        policy = session.site.policy.model_dump_json()
        self.state.under = "\n".join((str(session.seed), self.rows, policy, session.study.text))
        return self.state.under

    def start(self, session: SiteSession, encoder: Encoder) -> Arrays | None:
        """Return the run's start model for its encoder.

        It is None without an earlier model, or without a copy here.
        """
        study = session.study
        source = self.source(study) if study.warm_start else None
        if source is None:
            return None
        return rewritten(source, session.drawn_model(), session.layout, encoder)

    def sums(self, study: Study) -> SiteSums | None:
        """Return the site's half of a study's secure sums, or None.

        It is None where its updates cross in the clear.
        """
        if not study.aggregation.sums_updates:
            return None
        approval = None if self.approving is None else self.approving(study)
        # Institutions decide at the approval; one process rehearses where the study says so.
        if approval is None and (self.approving is not None or study.aggregation.is_optional):
            return None
        return SiteSums(self._keys(study, approval))

    def party_keys(self, study: Study) -> RunKeys:
        """Return the site's keys of a run with parties that have different columns."""
        approval = None if self.approving is None else self.approving(study)
        if approval is None and self.approving is not None:
            decline("sums-not-approved")
        return self._keys(study, approval)

    def _keys(self, study: Study, approval: SumApproval | None) -> RunKeys:
        return RunKeys(
            site=self.site, study=study, run=self.run, repeat=self.repeat, state=self.state, approval=approval
        )

    def before(self, round: int, session: SiteSession) -> Arrays:
        """Return the arrays that the site stored in its last round before this one."""
        self.under(session)
        return self.state.before(round)

    def last_own(self, session: SiteSession, shapes: ExtraShapes) -> Arrays:
        """Return the site's own part of the run's model, after its last round.

        A comparison may be repeated after the site has deleted the rounds: then the part is with the run's model.
        """
        self.under(session)
        if (arrays := own_arrays(self.state.last(), shapes)) or self.approving is None:
            return arrays
        stored_model = site_model(self.site, self.run, self.repeat)
        return {} if stored_model is None or arrays_defect(stored_model.own, shapes.own) else stored_model.own

    def completed(self, request: Request, session: SiteSession) -> Request:
        """Return a request with its model: as it came, or made here of the total that came.

        Raises
        ------
        NotTakingPart
            If model or total are none of the run.
        """
        study = session.study
        sums = self.sums(study)
        if sums is None:
            return request
        # One process that rehearses has all models already.
        if sums.keys.approval is None or not study.makes_models_at_sites:
            return request
        return completed(request, session, sums, lambda encoder: self.start(session, encoder))

    def last_model(self, request: CompareRequest, session: SiteSession, own: Arrays) -> CompareRequest:
        """Return a comparison's request with its model.

        It is stored where the coordinator lacks it or a part, or did not send it. Raises StorageError. After the
        comparison the site deletes the run's key, and its own part of the model. A repeated request is answered from
        the stored model.
        """
        study = session.study
        if not (own or request.total):
            return request
        of = arrays_sha256(request.total.arrays() if request.total else request.arrays)
        stored_model = site_model(self.site, self.run, self.repeat)
        if stored_model is not None and stored_model.of == of:
            return replace(request, arrays=stored_model.arrays, encoder=stored_model.encoder)
        whole = self.completed(request, session)
        self.keep_model(study, whole.arrays, whole.encoder, of=of, own=own)
        return whole

    def keep_model(self, study: Study, arrays: Arrays, encoder: Encoder, *, of: str, own: Arrays | None = None) -> None:
        """Store the model of a comparison for the site's people.

        Only an institution does.

        Parameters
        ----------
        study, arrays, encoder
            Of the model.
        of : str
            Hash of its arrays as they came.
        own : dict of name to array, optional
            The site's own part of it.
        """
        # One process that rehearses has all sites, and no folders of theirs.
        if self.approving is not None:
            model = SiteModel(study=study.text, of=of, arrays=arrays, encoder=encoder, own=own or {})
            model.write(self.site, self.run, self.repeat)


def compared_model(request: CompareRequest, session: SiteSession, own: SiteRun) -> CompareRequest:
    """Return a comparison's request with its model.

    The session gets the site's own part of it. Raises StorageError.
    """
    shapes = extra_shapes_of(session.study.text)
    own_part = own.last_own(session, shapes) if shapes.own else {}
    whole = own.last_model(request, session, own_part)
    session.own_arrays = own_part_of(own_part, shapes, whole.arrays)
    return whole


def own_part_of(own_arrays: Arrays, shapes: ExtraShapes, incoming: Arrays) -> OwnArrays:
    """Return a site's own part of the model.

    Before its first round it is the incoming one.
    """
    if shapes.own_model:
        return OwnArrays(model=own_arrays or incoming)
    return OwnArrays(part=own_arrays, names=tuple(shapes.own_part))
