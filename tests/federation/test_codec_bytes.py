"""Bytes of a run as the store has them, as a report tells them, and as they are said beforehand."""

from __future__ import annotations

import pytest

from flfed.deployment.operator.study_description import bytes_in_words, bytes_of_runs
from flfed.records.reports.report import report
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.study.study import Study

CODECS = {
    "int8": '\n[codec]\nname = "int8"\n',
    "top-k": '\n[codec]\nname = "top-k"\nshare = 0.2\n',
}


@pytest.mark.parametrize("codec", list(CODECS))
def test_uncompressed_is_what_the_same_study_sends_without_its_codec(conduct, small_sites, small_study, codec):
    sites = small_sites(3, rows=200)
    plain = conduct(sites, small_study)
    packed = conduct(sites, small_study + CODECS[codec])
    whole, found = (report(ran.reader, ran.run)["round-bytes"] for ran in (plain, packed))
    assert "codec" not in whole
    assert "uncompressed" not in whole["to-server"] and found["to-site"] == whole["to-site"]
    sizes = {key: pytest.approx(whole["to-server"][key]) for key in ("round", "message")}
    assert found["to-server"]["uncompressed"] == sizes
    assert plain.reader.summary(plain.run, "codec") is None


@pytest.mark.parametrize("codec", ["none", *CODECS])
def test_bytes_said_beforehand_bound_those_of_a_run(conduct, small_sites, small_study, codec):
    sites = small_sites(3, rows=200)
    ran = conduct(sites, small_study + CODECS.get(codec, ""))
    said = bytes_of_runs(ran.study, datasets.load("small").schema, sites)
    real: dict[tuple[str, str], int] = {}
    for entry in ran.reader.crossed([ran.run]):
        real[entry.site, entry.direction] = real.get((entry.site, entry.direction), 0) + entry.bytes
        if (entry.kind, entry.direction) == ("train", "to-server"):
            # The arrays are exact; each of 512 counts may need four bytes, and here needs two.
            slack = said[entry.site]["round-to-server"] - entry.bytes / entry.messages
            assert 512 * 2 <= slack < 512 * 2 + 50
    for site in sites:
        sent, got = (real[site.name, way] for way in ("to-server", "to-site"))
        assert sent <= said[site.name]["run-to-server"] < 1.8 * sent
        assert got <= said[site.name]["run-to-site"] < 1.25 * got


def test_a_policys_day_that_is_too_short_for_a_run_is_said_beforehand(small_sites, small_study):
    study, schema = Study.parse(small_study), datasets.load("small").schema
    [roomy] = small_sites(1)
    needed = bytes_of_runs(study, schema, [roomy])[roomy.name]["run-to-server"]
    [exact] = small_sites(1, policy=Policy(disclosure="open", resplit=True, **{"daily-bytes": 2 * needed}))
    [short] = small_sites(1, policy=Policy(disclosure="open", resplit=True, **{"daily-bytes": needed - 1}))
    said = {name: bytes_of_runs(study, schema, [of])[of.name] for name, of in (("exact", exact), ("short", short))}
    assert (said["exact"]["runs-a-day"], said["short"]["runs-a-day"]) == (2, 0)
    assert "so at most 2 runs a day" in bytes_in_words(said["exact"])
    assert "and would stop: raise daily-bytes" in bytes_in_words(said["short"])
