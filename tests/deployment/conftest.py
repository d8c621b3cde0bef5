"""What tests of the gate share: a site with frozen rows and an approval, messages of a real strategy, watched files."""

import copy
import datetime
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

import flfed
from flfed.deployment.gate.gate import Gate
from flfed.deployment.site_state import approval
from flfed.federation.client.client import SiteClient
from flfed.federation.engines.inprocess import InProcessGrid
from flfed.federation.recording.source_model import source_of
from flfed.paths import SiteFolder
from flfed.records.ledger import ledger_of
from flfed.rows.baselines import first_arrays
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Frame
from flfed.rows.features.encode import input_names
from flfed.rows.session import SiteSession
from flfed.rows.snapshots import snapshot
from flfed.study.study import Study
from flfed.summaries.summary import fit_encoder
from flfed.updates.aggregation.rounds import Participant, RunContext
from flfed.updates.codec import codec_of
from flfed.updates.messages.compare import COMPARE
from flfed.updates.strategies.fedavg import FedAvg, to_record
from tests import small_runs

TODAY = datetime.date(2026, 11, 20)
OPENED: list[str] = []
"""Files that were opened while a test watches; an audit hook stays for good, so there is one."""
WATCHING: list[bool] = []


def _heard(event: str, args: tuple[Any, ...]) -> None:
    if WATCHING and event == "open":
        OPENED.append(str(args[0]))


sys.addaudithook(_heard)


@dataclass(frozen=True)
class CountingFrame(Frame):
    """A table in memory that counts how often it is read."""

    reads: list[int] = field(default_factory=list)

    def read(self, folders: tuple[Path, ...]) -> pd.DataFrame:
        self.reads.append(1)
        return super().read(folders)


@dataclass
class Gated:
    """A site behind its gate: what a test asks it, and what it looks at."""

    folder: SiteFolder
    site: Site
    study: Study
    others: list[Site]
    run_config: dict[str, Any]
    today: datetime.date = TODAY
    gate: Gate = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self.open()

    def open(self, **changes: Any) -> Gate:
        """Return another gate of the site, with its policy or folder changed."""
        self.site = replace(self.site, **changes)
        self.gate = Gate(self.folder, self.site, today=lambda: self.today)
        return self.gate

    def policy(self, **changes: Any) -> Gate:
        """Return another gate, whose policy has other values in some keys."""
        return self.open(policy=Policy(**{**self.site.policy.model_dump(), **changes}))

    def freeze(self) -> snapshot.Frozen:
        return snapshot.freeze(self.site, self.folder.frozen, None)

    def approve(self, study: Study | None = None, **changes: Any) -> approval.Approval:
        """Approve the study for the rows that are frozen."""
        facts = snapshot.read_facts(self.site, self.folder.frozen)
        given = {
            "by": "Dr Kim", "co_sites": [site.name for site in self.others],
            "rows_sha256": facts.sha256 if facts else "", "schema_sha256": datasets.load("small").schema.sha256(),
        }  # fmt: skip
        return approval.approve(self.folder, study or self.study, **{**given, **changes})

    def message(self, kind: str, content: Any) -> Message:
        """Return a message as it comes to the node, from a request or a record."""
        record = content if isinstance(content, RecordDict) else content.to_record()
        return self._grid().numbered(Message(record, dst_node_id=1, message_type=kind))

    def trained(self, *, round: int = 1, evaluate: bool = False, holder: bool = False) -> Message:
        """Return a message as the study's own strategy builds it, with the model's first arrays.

        A `holder` has the encoder.
        """
        session = SiteSession(self.others[0], self.study)
        encoder = fit_encoder(session.layout, session.summary(), self.study.encode.scaler)
        strategy: FedAvg = self.study.strategy.build("strategy")
        strategy.assign(
            RunContext(
                participants={self.folder.site: Participant(node_id=1, rows_high=99, version=flfed.__version__)},
                encoder=encoder, plan=self.study.plan, rounds=self.study.rounds, seed=1, observer=print,
                codec=codec_of(self.study),
            )
        )  # fmt: skip
        strategy.run.delivery.holders.update({self.folder.site} if holder else ())
        arrays = first_arrays(session.trainable(), len(input_names(session.layout)))
        configure = strategy.configure_evaluate if evaluate else strategy.configure_train
        (message,) = configure(round, to_record(arrays), ConfigRecord(), self._grid())
        return self._grid().numbered(message)

    def context(self, **changes: Any) -> Context:
        grid = InProcessGrid(None, [self.folder.site], {**self.run_config, **changes})  # type: ignore[arg-type]
        return grid._contexts[1]

    def _grid(self) -> InProcessGrid:
        return InProcessGrid(None, [self.folder.site], {})  # type: ignore[arg-type]

    def refusal(self, message: Message, **changes: Any) -> str:
        """Return why the gate does not answer, and hold it to having read no row."""
        OPENED.clear()
        WATCHING.append(True)
        reads = len(self.site.source.reads)
        try:
            said = self.gate.refusal(message, self.context(**changes))
        finally:
            WATCHING.clear()
        assert len(self.site.source.reads) == reads
        rows = [path for path in OPENED if path.endswith((".parquet", ".csv"))]
        assert [path for path in rows if not Path(path).name.startswith("excluded")] == []
        return said

    def answer(self, message: Message, **changes: Any) -> Message:
        return self.gate.answer(message, self.context(**changes))

    def lines(self) -> list[Any]:
        return list(ledger_of(self.folder).lines())


@pytest.fixture
def gated(small_sites: Callable[..., list[Site]], small_study: str) -> Iterator[Callable[..., Gated]]:
    """A function that returns an approved site of three, behind its gate."""

    def make(
        text: str = "", *, policy: Policy | None = None, approved: bool = True, sites: int = 3, rows: int = 80
    ) -> Gated:
        study = Study.parse(text or small_study)
        own, *others = small_sites(sites, rows=rows, policy=policy or Policy(disclosure="open", resplit=True))
        own = replace(own, source=CountingFrame(own.source.table))
        folder = SiteFolder(own.name)
        folder.make()
        names = ",".join(site.name for site in [own, *others])
        config = {"study": study.text, "repeat": 0, "run": "20261120-abcd", "sites": names}
        made = Gated(folder, own, study, others, config)
        made.freeze()
        if approved:
            made.approve()
        return made

    yield make
    WATCHING.clear()


class GatedGrid(InProcessGrid):
    """The in-process grid of sites of which the first is behind its gate; every message that went to it is kept."""

    def __init__(self, gated: Gated) -> None:
        sites = {site.name: site for site in gated.others}
        side = SiteClient(lambda name, _: sites[name], source=source_of)
        app = side.app()
        self.asked: list[Message] = []
        self.replied: list[Message] = []

        def answer(message: Message, context: Context) -> Message:
            if context.node_config["site"] != gated.folder.site:
                return app(message, context)
            self.asked.append(message)
            self.replied.append(gated.gate.answer(message, context))
            return self.replied[-1]

        super().__init__(answer, [gated.folder.site, *sites], gated.run_config)  # type: ignore[arg-type]


@pytest.fixture
def conducted_through(conduct: Callable[..., Any]) -> Callable[[Gated], tuple[Any, GatedGrid]]:
    """A function that conducts a run with a gated site among others; returns its outcome and the grid."""
    from flfed.federation.recording.recorder import Recorder
    from flfed.federation.server.server import FederatedRun
    from flfed.records.store.writer import RunStore

    def go(gated: Gated) -> tuple[Any, GatedGrid]:
        grid, study = GatedGrid(gated), gated.study
        with RunStore.open() as store:
            series = store.begin_series(study=study.name, study_sha256=study.sha256(), study_text=study.text, repeats=1)
            writer = store.begin_run(
                series, engine="inprocess", path="one-by-one", seed=study.seed, rounds_planned=study.rounds,
                primary="roc_auc_score", task="binary", hashes={"schema": datasets.load("small").schema.sha256()},
            )  # fmt: skip
            return FederatedRun(grid, study, Recorder(writer, "roc_auc_score", study.rounds)).conduct(), grid

    return go


@pytest.fixture
def compared(conducted_through: Callable[[Gated], tuple[Any, GatedGrid]]) -> Callable[[Gated], RecordDict]:
    """A function that conducts a run with a gated site; returns the content of its comparison's reply."""

    def content(gated: Gated) -> RecordDict:
        _, grid = conducted_through(gated)
        (reply,) = [one for one in grid.replied if one.metadata.message_type == COMPARE]
        return copy.copy(reply.content)

    return content


SITE_APP_PACKAGE = """
from flfed import Csv, Holdout, Site

holdout = Holdout(salt="salt-0")
site = Site(name="site-01", title="Clinic One", dataset="small", source=Csv("small.csv"), holdout=holdout)
"""


@pytest.fixture
def package(tmp_path: Path, small_sites: Callable[..., list[Site]], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the package of site-01, which its own app is asked to show."""
    folder = tmp_path / "root" / "sites" / "site_01"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(SITE_APP_PACKAGE)
    (folder / "policy.toml").write_text('format = 1\ndisclosure = "institution"\nepsilon = 9.0\n')
    monkeypatch.setenv("FLFED_SITE_APP", "site-01")
    return folder


@pytest.fixture(scope="session")
def home_after_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[GatedGrid]]:
    """Where the home is kept as the run of `ran` left it, and the grid of that run, once there was one."""
    return tmp_path_factory.mktemp("ran") / "home", []


@pytest.fixture
def ran(
    package: Path, home: Path, gated: Callable[..., Gated], conducted_through: Any, small_study: str,
    home_after_run: tuple[Path, list[GatedGrid]],
) -> tuple[Any, Any]:  # fmt: skip
    """A site with a budget that took part in a run under differential privacy, and the grid; its approval holds.

    The run is made once, and each test has a copy of the home that it left.
    """
    private = '[privacy]\nname = "record-dp"\nepsilon = 2.0\nsampling = 0.2\n'
    site = gated(
        small_study.replace("epochs = 1", "steps = 4") + private, policy=Policy(epsilon=9.0), approved=False, rows=100
    )
    kept, grids = home_after_run
    if not grids:
        site.approve()
        outcome, grid = conducted_through(site)
        assert outcome.status == "completed"
        shutil.copytree(home, kept)
        grids.append(grid)
    else:
        shutil.rmtree(home)
        shutil.copytree(kept, home)
        site.open()
    return site, grids[0]


# Fixtures of this folder, too.
ask, closed, conduct, conducted = small_runs.ask, small_runs.closed, small_runs.conduct, small_runs.conducted
known, plain, record = small_runs.known, small_runs.plain, small_runs.record
