"""The page Privacy: it shows what record and JSON have, to the digit, and says what to do where nothing is."""

import json
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from flfed import Study, run
from flfed.records.objects import read_all
from flfed.records.reports.audit_headlines import AuditFigure
from flfed.records.reports.privacy_tables import kind_in_words
from flfed.records.reports.report import report
from flfed.records.statistics.verdict import MINUS, interval, number
from flfed.records.store.entries import AuditRow, SentRow, SiteRow
from flfed.records.store.reader import RunReader
from flfed.updates.messages.kinds import KEYS, KINDS, TRAIN
from tests.records.one_answer import words

pytestmark = [pytest.mark.slow, pytest.mark.studies]

HEART = ("cleveland", "hungary", "long-beach", "switzerland")
ROOT = Path(__file__).parents[2]
APP, PAGE = ROOT / "app.py", ROOT / "flfed/records/dashboard/pages/p70_privacy.py"


def privacy(run: str | None) -> AppTest:
    page = AppTest.from_file(str(APP), default_timeout=60).run()  # the first run registers the pages
    page.switch_page(str(PAGE))
    if run is not None:
        page.query_params["run"] = run
    page.run()
    assert not page.exception
    return page


def lines_of(page: AppTest, column: str) -> list[dict[str, str]]:
    """The table with this column, Markdown escapes taken away."""
    found = next(table.value for table in page.table if column in table.value.columns)
    return [{key: cell.replace("\\", "") for key, cell in line.items()} for line in found.to_dict("records")]


def unfolded(page: AppTest, *keys: str) -> AppTest:
    """The page with the tables behind these charts open."""
    for key in keys:
        page.session_state[f"{key}-table"] = True
    page.run()
    assert not page.exception
    return page


def charts(page: AppTest) -> int:
    return len(page.get("vega_lite_chart")) or len(page.get("arrow_vega_lite_chart"))


@pytest.fixture
def protected(store, write, payload):
    """The id of a run under record-level differential privacy that was not attacked."""
    run = write(store, store.begin_series(study="heart-dp", study_sha256="", study_text=""), rounds=2)
    run.summary("privacy", payload)
    return run.run


def test_an_empty_store_says_what_to_do(shown: str):
    assert "flfed demo" in words(privacy(None))
    assert charts(privacy(None)) == 0


def test_an_unknown_run_is_answered_with_a_sentence(shown: str, heart: str):
    assert "is not in the store" in words(privacy("20260101-000000-abcd"))


def test_what_was_spent_is_shown_as_the_json_has_it(shown: str, protected: str):
    page = unfolded(privacy(protected), "epsilon-spent")
    with RunReader.open(shown) as reader:
        sites = report(reader, protected)["privacy"]["sites"]
    lines = {line["Site"]: line for line in lines_of(page, "ε of this run")}
    assert list(lines) == list(sites)
    for site, line in sites.items():
        assert 0 <= float(lines[site]["ε of this run"]) - line["epsilon"] < 0.01
        assert lines[site]["δ"] == "1e-4" and line["delta"] == 1e-4
        assert (lines[site]["Steps requested"], lines[site]["Steps planned"]) == ("150", "150")
        if line["budget"] is not None:
            assert float(lines[site]["Budget (ε)"]) == line["budget"]
            together = float(lines[site]["ε of all its studies, about"])
            assert 0 <= together - line["spent-before"] - line["epsilon"] < 0.01
    # 3 - 1.9 - 0.9972 = 0.1028, and 1.5 - 1.2 - 0.5 = -0.2
    left = {site: line["Left of it, about"] for site, line in lines.items()}
    assert (left["hungary"], left["switzerland"], left["long-beach"]) == ("0.100", f"{MINUS}0.200", "")
    assert (lines["long-beach"]["Budget (ε)"], lines["long-beach"]["ε in its ledger before"]) == ("none", "not known")
    assert "Overdrawn: switzerland by about 0.2." in words(page)


def test_a_promise_without_a_measurement_is_not_green(shown: str, protected: str, store, attacks):
    page = privacy(protected)
    said = words(page)
    assert "Promised to each person by record-dp: ε = 1 at δ = 1e-4" in said
    assert ":orange-badge[promised, not measured]" in said
    assert "A promise without a measurement is not shown as green." in said
    assert f"flfed audit {protected}" in said and "audit RUN" not in said
    assert charts(page) == 2  # spending, and what left
    store.audit(protected, attacks)
    page = privacy(protected)
    assert ":green-badge[within the promise]" in words(page)
    assert charts(page) == 4  # and one of each attack
    worse = {"promise": 0.731, "method": "", "rows": 100, "verdict": "beyond the promise", "says": "Seen."}
    perfect = worse | {"verdict": "not known"}
    store.audit(protected, [AuditRow("membership", "hungary", "roc_auc_score", 1.0, None, None, perfect)])
    page = privacy(protected)
    assert ":orange-badge[measured in part]" in words(page) and "green-badge" not in words(page)
    assert lines_of(page, "Verdict")[0]["Verdict"] == "not known"
    store.audit(protected, [AuditRow("membership", "hungary", "roc_auc_score", 0.9, 0.85, 0.94, worse)])
    said = words(privacy(protected))
    assert ":red-badge[beyond the promise]" in said and "green-badge" not in said
    assert "Attacks got further than the promise: membership at hungary." in said


def test_attacks_are_shown_as_the_json_has_them(shown: str, protected: str, store, attacks):
    store.audit(protected, attacks)
    with RunReader.open(shown) as reader:
        audit = report(reader, protected)["audit"]
    page = privacy(protected)
    lines = {(line["Attack"], line["Site"]): line for line in lines_of(page, "Its verdict")}
    assert len(lines) == len(audit) == 5
    for entry in audit:
        line = lines[entry["attack"], entry["site"]]
        span = f" ({interval(entry['low'], entry['high'])})" if entry["low"] is not None else ""
        assert line["Reached (95 %)"] == number(entry["value"]) + span
        assert line["Its verdict"] == entry["verdict"]
        assert line["It means"] == entry["says"]
    inversion, membership = lines["inversion", "hungary"], lines["membership", "cleveland"]
    assert membership["Reached (95 %)"] == "0.512 (0.462 to 0.572)"
    assert (inversion["Promised, at most"], membership["Promised, at most"]) == ("nothing", "0.731")
    summary = {line["Attack"]: line for line in lines_of(page, "Most at")}  # one line an attack, of its worst site
    assert (len(summary), summary["membership"]["Most at"]) == (2, "switzerland")
    assert summary["membership"]["Reached there (95 %)"] == "0.580 (0.530 to 0.640)"
    assert summary["membership"]["Lowest to highest"] == "0.490 to 0.580, of 4 figures"
    assert summary["inversion"]["Verdict"] == "no promise"
    assert "A verdict goes by the interval's lower end" in words(page)


def test_the_file_of_attacks_has_their_figures_as_numbers(shown: str, protected: str, store, attacks):
    from flfed.records.sections.privacy import attacks_section

    store.audit(protected, attacks)
    with RunReader.open(shown) as reader:
        found = report(reader, protected)
        run = reader.runs_of(protected)[0]
    audit = read_all(AuditFigure, found["audit"])
    file = attacks_section(found["privacy"], audit, run).tables[1]
    assert file.key == "attacks" and len(file.rows) == len(audit)
    for line, entry in zip(file.rows, found["audit"], strict=True):
        for key in ("attack", "site", "metric", "value", "low", "high", "promise", "verdict"):
            assert line[key] == entry[key]


def domains(page: AppTest) -> list[list[float]]:
    """The ends of the x axis of each chart that has them."""
    found = [json.loads(chart.proto.spec) for chart in page.get("vega_lite_chart") or page.get("arrow_vega_lite_chart")]
    layers = [layer for spec in found for layer in spec.get("layer", [])]
    scales = [layer["encoding"]["x"].get("scale", {}) for layer in layers if "x" in layer.get("encoding", {})]
    return [scale["domain"] for scale in scales if "domain" in scale]


def test_everything_given_away_is_told_under_a_green_badge_too_and_looks_like_everything(
    shown: str, protected: str, store, attacks
):
    told = {"promise": None, "method": "Wilson", "rows": 96, "verdict": "no promise", "says": "Of this share."}
    given = [AuditRow("another-attack", site, "share-given-away", 1.0, 0.96, 1.0, told) for site in HEART]
    store.audit(protected, [*attacks, *given])
    page = privacy(protected)
    assert ":green-badge[within the promise]" in words(page)
    said = "share given away 1.000, at 4 of 4 sites: no promise covers it."
    assert f":red[**another-attack: {said}**]" in words(page)
    assert [0.0, 1.0] in domains(page)
    line = next(line for line in lines_of(page, "Most at") if line["Attack"] == "another-attack")
    assert line["Verdict"] == "no promise; it succeeded at 4 of 4"


def test_a_run_without_a_model_gets_no_advice_that_would_be_refused(shown: str, store, write, payload):
    run = write(store, store.begin_series(study="s", study_sha256="", study_text=""), rounds=0)
    run.summary("privacy", payload)
    run.finish(status="failed", reason="too few sites")
    said = words(privacy(run.run))
    assert "The run has no final model that could be attacked." in said
    assert said.count("flfed audit") == 0


def test_sites_without_ledger_and_budget_get_a_sentence_and_no_chart(shown: str, store, write, payload):
    run = write(store, store.begin_series(study="s", study_sha256="", study_text=""), rounds=2)
    line = payload["sites"]["cleveland"] | {"budget": None, "spent-before": None}
    run.summary("privacy", payload | {"sites": dict.fromkeys(HEART, line)})
    page = privacy(run.run)
    assert charts(page) == 1  # what left
    assert "At each of 4 sites: this run ε = 1 for 150 steps, without a budget." in words(page)
    assert "Research sites that a study cuts out of a table have none" in words(page)
    assert not any("Budget" in table.value.columns for table in page.table)


def test_what_left_is_shown_by_kind_and_adds_up(shown: str, protected: str):
    page = unfolded(privacy(protected), "bytes")
    with RunReader.open(shown) as reader:
        total = reader.bytes_sent([protected])
    lines = lines_of(page, "Left in all, bytes")
    assert [line["Site"] for line in lines] == ["cleveland", "hungary", "long-beach", "switzerland"]
    assert lines[0] == {
        "Site": "cleveland", "Delta, bytes": "2400", "Metrics, bytes": "600", "Left in all, bytes": "3000",
        "Came to the site, bytes": "2400",
    }  # fmt: skip
    assert total == {"to-server": 4 * 3000, "to-site": 4 * 2400}


def test_what_so_many_bytes_are_is_said_with_the_figures_of_the_record(shown: str, store):
    series = store.begin_series(study="s", study_sha256="", study_text="", repeats=2)
    facts = {"engine": "inprocess", "path": "", "rounds_planned": 3, "primary": "roc_auc_score", "task": "binary"}
    for repeat in range(2):
        run = store.begin_run(series, repeat=repeat, seed=repeat, **facts)
        for site in "ab":
            run.sites([SiteRow(site, rows=100, holdout_rows=30)])
        for at in (1, 2, 3):
            asked = "ab" if at < 3 else "a"  # b is not asked in each round: bytes by rounds would be wrong
            run.round(at, sent=[SentRow(site, "to-server", "train", 4000) for site in asked])
        run.round(4, sent=[SentRow(site, "to-server", "query.compare", 10_000) for site in "ab"])
        run.finish(status="completed")
    said = words(privacy(series))
    # Updates: 2 repeats of 3 and 2 rounds, 40 kB of 80 kB.
    assert "About 50 % of the bytes are updates of training, one a round: 4 to 6 from a site, of about 4.00 kB" in said
    assert "summed over all messages of all 2 repeats." in said
    link = "[docs/protection.md](https://github.com/flfed/flfed/blob/main/docs/protection.md)"
    assert link in said and "messages.py" not in said
    assert "## Which protection holds against whom" in (ROOT / "docs/protection.md").read_text()
    alone = words(privacy(run.run))
    assert "summed over all rounds." in alone and ": 2 to 3 from a site, of about 4.00 kB each" in alone


def test_how_many_bytes_leave_follows_from_the_model_and_not_from_how_many_rows_a_site_has(
    shown: str, small_sites, small_study
):
    sizes = {}
    for rows in (100, 400):
        name = run(Study.parse(small_study), sites=small_sites(3, rows=rows)).report["run"]
        with RunReader.open(shown) as reader:
            left = [entry for entry in reader.crossed([name]) if entry.direction == "to-server"]
        trained = [entry for entry in left if entry.kind == "train"]
        sizes[rows] = {entry.bytes / entry.messages for entry in trained}
        share = 100 * sum(entry.bytes for entry in trained) / sum(entry.bytes for entry in left)
        assert f"About {share:.0f} % of the bytes are updates of training" in words(privacy(name))
    assert sizes[100] == sizes[400] and len(sizes[100]) == 1


def test_what_is_not_covered_and_what_is_in_force_are_listed(shown: str, protected: str, payload):
    page = privacy(protected)
    said = words(page)
    assert all(sentence in said for sentence in payload["warnings"])
    uncovered = "Not covered by the promise"
    assert [line[uncovered] for line in lines_of(page, uncovered)] == payload["uncharged"]
    lines = {line["Mechanism"]: line for line in lines_of(page, "Mechanism")}
    how = "noise multiplier 7.992, sampling 0.200, clip 1, steps 150"
    assert lines["differential privacy"] == {
        "Mechanism": "differential privacy", "Is": "record-dp", "How": how,
        "Promises": "each person: ε = 1 at δ = 1e-4",
    }  # fmt: skip
    assert lines["suppression of small cells"]["Is"] == "at 0 of 4 sites"
    assert lines["secure aggregation"]["Is"] == "off"


@pytest.mark.parametrize(("asked", "engine", "rounds", "recorded", "is_", "how"), [
    ("off", "deployment", 2, None, "off", "the server sees each site's own update"),
    ("auto", "inprocess", 2, None, "off", "the server sees each site's own update"),
    ("auto", "deployment", 2, None, "off", "the server sees each site's own update"),
    ("auto", "deployment", 0, None, "not begun", "the run ended before its sites had each other's keys"),
    ("on", "inprocess", 0, None, "not begun", "the run ended before its sites had each other's keys"),
    ("on", "inprocess", 2, "rehearsed", "rehearsed", "in one process that holds all updates"),
    ("ckks", "inprocess", 2, "rehearsed-encrypted", "rehearsed", "in one process that has the key"),
    ("auto", "deployment", 2, "masked", "on", "the sum of the updates of all 5 sites"),
])  # fmt: skip
def test_the_page_says_of_each_run_whether_updates_were_added_up_in_secret(
    shown: str, store, write, payload, asked: str, engine: str, rounds: int, recorded: str | None, is_: str, how: str
):
    text = f'[privacy]\nname = "record-dp"\nsecure-aggregation = "{asked}"\n'
    series = store.begin_series(study="heart-dp", study_sha256="", study_text=text)
    run = write(store, series, rounds=rounds, engine=engine)
    run.summary("privacy", payload)
    if recorded:
        run.summary("secure-sums", {"kind": recorded, "sites": 5})
    page = privacy(run.run)
    line = next(line for line in lines_of(page, "Mechanism") if line["Mechanism"] == "secure aggregation")
    assert line["Is"] == is_
    assert how in line["How"]
    assert ("and no single update" in words(page)) == (recorded == "masked")
    assert ("without masks" in words(page)) == (recorded == "rehearsed")
    # A single update is promised to stay hidden only where there were masks.
    assert (line["Promises"] == "nothing") == (recorded != "masked")


def test_messages_of_secure_sums_have_words_of_their_own():
    assert kind_in_words(KEYS).endswith("secure sums") and kind_in_words(TRAIN) != kind_in_words(KEYS)
    # No kind of message is shown under its code.
    assert [kind for kind in KINDS if kind_in_words(kind) == kind] == []


def test_a_run_without_a_mechanism_and_an_old_one_say_so_in_words(shown: str, store, write, payload, heart: str):
    run = write(store, store.begin_series(study="plain", study_sha256="", study_text=""), rounds=2)
    run.summary("privacy", dict.fromkeys(payload) | {"mechanism": "none", "uncharged": ["Each update."], "sites": {}})
    page = privacy(run.run)
    said = words(page)
    assert "No privacy mechanism: the run promises nothing." in said
    assert ":orange-badge[nothing promised]" in said
    assert 'With [privacy] name = "record-dp"' in said
    # Once, and first: the bytes follow, and what is not covered has no second section.
    titles = [block.value for block in page.markdown if block.value.startswith("#")]
    assert titles == ["## What is protected, and what is not", "## Data sent by each site"]
    uncovered = "Without a promise nothing is covered"
    assert lines_of(page, uncovered) == [{uncovered: "Each update."}] and "Limits of the promise" not in said
    page = privacy(heart)
    assert "Privacy: not known; the record says nothing of privacy" in words(page)
    assert charts(page) == 1  # what left is known all the same


def test_repeats_are_told_that_each_spends_again(shown: str, store, write, payload):
    series = store.begin_series(study="s", study_sha256="", study_text="", repeats=2)
    for repeat in range(2):
        write(store, series, repeat=repeat, rounds=2).summary("privacy", payload)
    said = words(privacy(series))
    assert "Each of the 2 repeats spends again: together at most ε = 2 at δ = 2e-4" in said
    assert "2 repeats" in said


def test_a_hundred_sites_have_a_chart_of_some_and_a_table_of_all(shown: str, store, payload):
    series = store.begin_series(study="many", study_sha256="", study_text="")
    run = store.begin_run(
        series, engine="inprocess", path="stacked", seed=1, rounds_planned=1, primary="roc_auc_score", task="binary"
    )
    names = [f"site-{k:03d}" for k in range(100)]
    for name in names:
        run.sites([SiteRow(name, rows=100, holdout_rows=30)])
    run.round(1, sent=[SentRow(name, "to-server", "train", 1000) for name in names])
    line = payload["sites"]["cleveland"]
    run.summary("privacy", payload | {"sites": dict.fromkeys(names, line)})
    page = privacy(run.run)
    assert "The chart shows the 24 of 100 sites with the least budget left, or without one." in words(page)
    assert [len(frame.value) for frame in page.dataframe] == []  # nothing of a table that is folded is sent
    unfolded(page, "epsilon-spent", "bytes")
    assert [len(frame.value) for frame in page.dataframe] == [100, 100]


@pytest.mark.browser
def test_the_page_is_drawn_with_its_charts(window, protected: str, store, attacks):
    store.audit(protected, attacks)
    page = window.page
    page.get_by_role("link", name="Privacy").click()
    page.get_by_role("heading", name="Privacy budget spent").wait_for()
    page.locator("[data-testid=stVegaLiteChart] svg").first.wait_for()
    window.drawn()
    drawn = page.locator("[data-testid=stVegaLiteChart]")
    assert drawn.count() == 4
    assert drawn.first.locator(".mark-rect path").count() >= 7  # a bar a site and ledger, and the budgets
    window.turn_to("Overview")
    page.get_by_role("heading", name="heart-dp").wait_for()
    page.get_by_test_id("stMain").get_by_role("link", name="Privacy").click()
    page.get_by_role("heading", name="Privacy budget spent").wait_for()
    window.drawn()
    window.picture("privacy", whole=True)
