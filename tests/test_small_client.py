"""A client without flfed is one of three sites: the model is that of a run with our own client at all three."""

import ast
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto

import flfed
from flfed import Study, run
from flfed.federation.engines.engine import ENGINES, RemoteSite, RunConfig, RunResources, StartedGrid, find_sites
from flfed.federation.engines.inprocess import InProcess, InProcessGrid
from flfed.rows.data.site import Site, study_table
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.messages.enrol import EnrolReply

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "examples" / "small_client.py"
SCHEMA = ROOT / "datasets" / "breast-cancer" / "schema.toml"
STUDY = """
format = 1
name = "three-sites"
purpose = "Train at three sites, one of which runs another client"
legal-basis = "public data, without identifiers"
seed = 7

[dataset]
name = "breast-cancer"
partition = { by = "iid", sites = 3, seed = 1 }

[model]
name = "logistic"

[plan]
lr = 0.5
PLAN

[strategy]
name = "fedavg"
rounds = 2
"""
PLANS = {
    "steps of batches": "batch = 25\nsteps = 10\nl2 = 0.01", "epochs": "batch = 25\nepochs = 2",
    "all rows": "batch = 0\nsteps = 4",
}  # fmt: skip
OTHER = "breast-cancer-2"
"""The site that runs the other client."""


def small_client() -> ModuleType:
    """Return the example as a module."""
    spec = importlib.util.spec_from_file_location("small_client", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["small_client"] = module  # its dataclasses look their types up there
    spec.loader.exec_module(module)
    return module


def written(study: Study, site: str, folder: Path) -> tuple[Path, Path]:
    """Write a site's training and holdout rows as two CSV files; numbers keep all of their digits."""
    (found,) = (one for one in find_sites(study) if one.name == site)
    table = study_table(study, found)
    places = folder / "training.csv", folder / "holdout.csv"
    for place, rows in zip(places, (table.training, table.holdout("test")), strict=True):
        pd.DataFrame(rows).to_csv(place, index=False, float_format="%.17g")
    return places


def through_bytes(message: Message) -> Message:
    """Return what a message is once it has crossed: nothing of this process is in it."""
    crossed = message_from_proto(message_to_proto(message))
    crossed.metadata.__dict__["_message_id"] = message.metadata.message_id
    return crossed


@dataclass
class Mixed:
    """The app of all sites: one has another client, and its messages cross as bytes."""

    ours: Any
    others: dict[str, Any]
    kinds: list[str]

    def __call__(self, message: Message, context: Context) -> Message:
        other = self.others.get(str(context.node_config["site"]))
        if other is None:
            return self.ours(message, context)
        self.kinds.append(message.metadata.message_type)
        return through_bytes(other(through_bytes(message), context))


class MixedSites(InProcess):
    """The engine of this process, with another client at some sites."""

    others: dict[str, Any] = {}
    kinds: list[str] = []

    @contextmanager
    def started(
        self, sites: Sequence[Site | RemoteSite], run_config: RunConfig, resources: RunResources
    ) -> Iterator[StartedGrid]:
        with super().started(sites, run_config, resources) as (grid, _):
            assert isinstance(grid, InProcessGrid)
            app = Mixed(grid._app, self.others, self.kinds)
            yield InProcessGrid(app, [site.name for site in sites], run_config), None


def final_arrays(study: Study, engine: str) -> tuple[dict[str, np.ndarray], Any]:
    result = run(study, engine=engine)
    assert result.status == "completed"
    return checkpoints.final(result.run).arrays, result


@pytest.fixture
def mixed(monkeypatch: pytest.MonkeyPatch) -> type[MixedSites]:
    """An engine of these tests, known by the name "mixed"."""
    monkeypatch.setitem(ENGINES, "mixed", f"{__name__}:MixedSites")
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or sys.modules[MixedSites.__module__])
    MixedSites.others, MixedSites.kinds = {}, []
    return MixedSites


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_the_model_is_that_of_a_run_with_our_own_client_at_all_sites(plan, mixed, home, tmp_path):
    study = Study.parse(STUDY.replace("PLAN", plan))
    expected, ours = final_arrays(study, "inprocess")
    mixed.others = {
        OTHER: small_client().client_app(OTHER, flfed.__version__, SCHEMA, *written(study, OTHER, tmp_path))
    }
    found, theirs = final_arrays(study, "mixed")
    assert mixed.kinds == ["query.enrol", "query.summarise", "train", "train", "evaluate", "query.compare"]
    assert found.keys() == expected.keys() == {"weight", "bias"}
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-6)
        assert np.abs(value).max() > 0.01
    # It is one of three at each step, and its figures stand with the others'.
    area = {site: of["global"]["roc_auc_score"]["value"] for site, of in theirs.report["sites"].items()}
    assert area.keys() == ours.report["sites"].keys() and len(area) == 3
    assert area[OTHER] == pytest.approx(ours.report["sites"][OTHER]["global"]["roc_auc_score"]["value"], abs=1e-6)


def imports(source: str) -> set[str]:
    """Return the packages that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or "").split(".")[0])
    return found


def test_it_has_at_most_three_hundred_lines_and_nothing_but_numpy_and_flower():
    source = FILE.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 300
    assert imports(source) - sys.stdlib_module_names == {"numpy", "flwr"}
    assert imports("import flfed.seeds\nfrom . import x") == {"flfed", "."}


@pytest.fixture
def asked(tmp_path: Path) -> Callable[..., Message]:
    """A function that asks the small client, of a site with its rows."""
    study = Study.parse(STUDY.replace("PLAN", PLANS["all rows"]))
    app = small_client().client_app(OTHER, flfed.__version__, SCHEMA, *written(study, OTHER, tmp_path))

    def ask(kind: str, content: RecordDict, text: str = study.text) -> Message:
        grid = InProcessGrid(app, [OTHER], {"study": text, "repeat": 0})
        (reply,) = grid.send_and_receive([Message(content, dst_node_id=1, message_type=kind)])
        return reply

    return ask


@pytest.mark.parametrize("change", [
    ('optimiser = "adam"', "[plan]\n"),
    ('[privacy]\nname = "record-dp"\nepsilon = 3.0\ndelta = 1e-5\n\n[strategy]', "[strategy]"),
], ids=["another optimiser", "privacy"])  # fmt: skip
def test_it_refuses_a_study_that_asks_for_more(change: tuple[str, str], asked: Callable[..., Message]):
    new, old = change
    text = STUDY.replace("PLAN", PLANS["all rows"])
    text = text.replace(old, old + new + "\n" if old == "[plan]\n" else new)
    reply = EnrolReply.from_record(asked("query.enrol", RecordDict(), text).content)
    assert not reply.accepted and reply.site == OTHER


def test_an_error_says_its_type_and_no_cell(asked: Callable[..., Message]):
    reply = asked("train", RecordDict({"config": ConfigRecord({"fit": True, "score": False})}))
    assert reply.has_error() and reply.error.reason == "KeyError"
