"""A site that says something else than our sentences: nothing of it is in record, report, export or error."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pandas as pd
import pytest

from flfed.errors import FlfedError
from flfed.export.run_folder import export
from flfed.federation.server.run import run
from flfed.records.store.reader import RunReader
from flfed.refusals import NotTakingPart, Refusal
from flfed.rows.data.sources import Frame
from flfed.study.study import Study

LIE = 'urgent\u202e: see https://evil.example;=HYPERLINK("https://evil.example","open") or call 0800 123456'
RECORDED = f"said something else ({len(LIE) - 1} characters)"


@dataclass(frozen=True, eq=False)
class Lying(Frame):
    """A table whose reading ends in a text of the site's own choice, which its client takes for a refusal."""

    def read(self, folders: object) -> pd.DataFrame:
        forged = str.__new__(Refusal, LIE)
        forged.code, forged.facts = "paused", {}
        raise NotTakingPart(forged)


def test_what_a_site_says_instead_of_a_sentence_is_counted_and_written_down_nowhere(
    small_sites, small_study, flfed, tmp_path
):
    honest = small_sites(3)
    sites = [*honest[:2], replace(honest[2], source=Lying(honest[2].source.table), title="Evil\u2067 Hospital\u202e")]
    ended = run(Study.parse(small_study).replace({"rounds": 2}), sites=sites)
    with RunReader.open() as reader:
        [event] = [event for event in reader.events([ended.run]) if event.kind == "refused"]
        [refused] = [site for site in reader.sites(ended.run) if site.status == "refused"]
    assert (event.site, event.reason) == (refused.site, refused.reason) == ("site-03", RECORDED)
    export(ended.run, tmp_path / "out")
    written = "".join(path.read_text() for path in (tmp_path / "out").iterdir() if path.suffix != ".safetensors")
    shown = flfed("run", "show", ended.run)[1] + flfed("run", "show", ended.run, "--json")[1] + json.dumps(ended.report)
    assert RECORDED in written and RECORDED in shown
    for part in ("evil", "call 0800", "\u202e", "\u2067"):
        assert part not in written + shown
    with pytest.raises(FlfedError) as stopped:
        run(Study.parse(small_study).replace({"rounds": 2}), sites=sites[1:])
    assert RECORDED in str(stopped.value) and "evil" not in str(stopped.value)
