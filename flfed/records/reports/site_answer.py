"""Answer at one site: should it join, and what that rests on."""

from __future__ import annotations

from collections.abc import Sequence

from flfed.records.reports.narrative import gain_in_words, interval_name
from flfed.records.reports.report import OWN_COLUMNS, STARTED
from flfed.records.reports.site_verdict import (
    DIFFERENCES,
    SITE_ARMS,
    best_arm,
    best_gain,
    class_words,
    own_in_words,
    site_verdict,
    varies,
    worthwhile_at,
)
from flfed.records.statistics import Report
from flfed.records.statistics.listed.noised_scores import (
    TRAINED_ON,
    is_covered,
    is_uncompared,
    scores_in_words,
    trained_on,
)
from flfed.records.statistics.listed.trained_rows import TRAINED_TEST_ROWS, trained_at_site
from flfed.records.statistics.mean_gain import mean_gain_in_words
from flfed.records.statistics.own_models import SAME, naive_in_words, own_parts_in_words, rival_in_words
from flfed.records.statistics.verdict import (
    ABSENT,
    CANNOT_BE_TOLD,
    DO_NOT_USE,
    NO_CLEAR_GAIN,
    PAYS,
    better_of,
    decimals_for,
    interval,
    metric_name,
    number,
    sentence_case,
)
from flfed.records.store.entries import SiteEntry
from flfed.study.tables import in_sums_only

FEW_HOLDOUT_ROWS = 100
"""Below so many test rows, of the rarer class where both are counted, an interval is wide: of 100 rows a share of
one half is known to within .10."""
SHOULD = {
    PAYS: "Yes: joining pays at {site}.",
    NO_CLEAR_GAIN: "No clear gain at {site}: these rows leave open anything from {span}.",
    DO_NOT_USE: "No: do not use the shared model at {site}.",
}
"""The answer to "should this site join?" by its verdict."""
MODELS = {"global": "Shared model", "local-only": "Site model", "personalised": "Adjusted to site"}
"""The columns of the table, by arm."""
MEANING = (
    "A 95 % CI is the range that these test rows leave open; that of the gain is widened for the number of sites "
    "looked at. Where it contains 0, joining may as well bring nothing."
)
COSTS = (
    "Whether it is worth it depends on what joining costs as well: page Privacy says what this run promises about a "
    "person's rows, and what left."
)
TOGETHER = (
    "Over all test rows together a model is credited for telling the sites apart, too; what a site gains by joining is "
    "measured within each site."
)
NO_MORE = (
    "It does not show what the model would do next year, at a site that took no part, or to care: only how well each "
    "model ranks or predicts the outcomes of these test rows."
)


def should_it_join(found: Report, site: str, metric: str) -> str:
    """Return the answer to whether a site should join."""
    of_site = found["sites"][site]
    if is_uncompared(found):
        return f"Whether joining pays at {site} is not told."
    code, _ = site_verdict(of_site, metric)
    return SHOULD.get(code, "It cannot be told at {site}.").format(site=site, span=_worse_to_better(of_site, metric))


def _worse_to_better(of_site: Report, metric: str) -> str:
    """Return the deciding interval of a gain in words.

    An empty text without one.
    """
    best = best_arm(of_site, metric)
    if best is None or best[1].low is None or best[1].high is None:
        return ""
    deciding = best[1].deciding
    bounds = (deciding.low or 0.0, deciding.high or 0.0)
    digits = decimals_for(deciding, worthwhile_at(of_site, metric))
    return " to ".join(f"{number(abs(bound), digits)} {'worse' if bound < 0 else 'better'}" for bound in bounds)


def why_not_told(found: Report, sites: Sequence[SiteEntry], site: str) -> str:
    """Return why one site's people see no figures.

    The text is "" where it is as for all sites.
    """
    # A site may have refused, or share sums only; else it is as for all sites.
    entry = next((entry for entry in sites if entry.site == site), None)
    if entry is not None and entry.status == "refused":
        return f"{site} did not take part in this run: {entry.reason.rstrip('.')}."
    if entry is not None and in_sums_only(entry.shared_as) and found["status"] == "completed":
        return f"{site} shares its figures in sums over all sites only: the record has none of its own."
    return ""


def own_figures(found: Report, sites: Sequence[SiteEntry]) -> list[str]:
    """Return the sites that have figures of their own.

    Sites that share sums only have none.
    """
    hidden = {site.site for site in sites if in_sums_only(site.shared_as)}
    return sorted(set(found["sites"]) - hidden)


def rests_on(found: Report, site: str, metric: str) -> list[str]:
    """Return what a site's figures rest on.

    It also says what they do not show.

    Parameters
    ----------
    found : dict
        From `reports.report`.
    site, metric : str
    """
    of_site = found["sites"][site]
    if is_covered(found):
        compared = [] if is_uncompared(found) else [MEANING]
        return [*compared, *_of_noise(found, site), COSTS, NO_MORE]
    lines = [MEANING] if best_gain(of_site, metric) is not None else []
    rows, holdout = of_site["rows"], of_site["holdout-rows"]
    over = ""
    if found["repeats"] > 1:
        over = f", in each of {found['repeats']} repeats, of which every figure is the mean"
    # Where a site keeps its counts back, nothing is said of its holdout.
    if holdout is not None:
        count = f"{holdout} of its {rows} rows"
        # A holdout that is drawn anew may have another size in each repeat.
        if varies(of_site):
            least, most = of_site["holdout-rows-range"]
            count = f"about {count} ({least} to {most}, drawn anew)"
        lines.append(
            f"Measured on the site's own test rows: {count}, on which this run trained no model{over}. "
            f"A {better_of(metric)} {metric_name(metric)} is better."
        )
        lines += _few(of_site)
    before = found.get(TRAINED_TEST_ROWS)
    lines += trained_at_site(before, site)
    lines += [said for said in (own_parts_in_words(found),) if said]
    lines += _own_model(of_site, metric)
    lines += [said for said in (naive_in_words([of_site], metric),) if said]
    lines += _began_with(of_site, metric, unknown=site not in (before or {}).get("sites", {}))
    if over:
        lines.append(_two_intervals(of_site, metric))
    if mean := mean_gain_in_words(found["mean-gain"].get(metric), metric):
        lines.append(mean)
    # The two are measured on other rows, so that a comparison of them would mislead.
    if (found["pooled"] or {}).get(metric, {}).get("value") is not None:
        lines.append(
            "A model of all rows in one place (pooled) is measured on all test rows together, not at one site: compare "
            f"it with the shared model's {number(found['global'][metric]['value'])} there, not with this site's."
        )
    lines.append(COSTS)
    lines.append(NO_MORE)
    return lines


def _of_noise(found: Report, site: str) -> list[str]:
    """Return what figures of noised counts rest on."""
    about, unit, repeats = trained_on(found["sites"][site]), found["privacy"]["unit"], found["repeats"]
    over = f" Every figure is the mean of {repeats} repeats, each with noise of its own." if repeats > 1 else ""
    return [
        "Measured on the site's own test rows, on which this run trained no model, by noised counts: how many these "
        f"are does not leave the site. It trained on about {about} {unit}s, by a noised count.{over}",
        *scores_in_words(found, site),
    ]


def _began_with(of_site: Report, metric: str, *, unknown: bool) -> list[str]:
    """Return how the model does that the run began with, as it is and fitted to the site's own rows.

    `unknown` tells that nobody has counted the test rows that it was trained on.
    """
    values = [of_site.get(arm, {}).get(metric, {}).get("value") for arm in STARTED]
    if None in values:
        return []
    as_it_is, tuned = map(number, values)
    return [
        f"The model that the run began with reaches {as_it_is} here as it is, and {tuned} where the site draws it to "
        "its own rows without the others."
        + (" If this site took part in that earlier run with other test rows, they are too good." if unknown else "")
    ]


def _own_model(of_site: Report, metric: str) -> list[str]:
    """Return the kind of the site's own model.

    Where it differs from the shared one's, it also says how one of that kind does.
    """
    same = (of_site["local-only-same"] or {}).get(metric, {}).get("value")
    if of_site["local-only-family"] == SAME:
        return _own_columns(of_site, metric)
    which = f": {family}" if (family := own_in_words(of_site)) else ""
    reaches = "" if same is None else f" One of the shared model's own kind, trained here, reaches {number(same)}."
    return [f"The site's own model is {rival_in_words([of_site])}{which}.{reaches}", *_own_columns(of_site, metric)]


def _own_columns(of_site: Report, metric: str) -> list[str]:
    """Return what a site's own columns are for, where it has some."""
    figure = of_site.get(OWN_COLUMNS, {}).get(metric)
    if figure is None:
        return []
    reaches = (
        "" if figure["value"] is None else f" Its own model with the same columns reaches {number(figure['value'])}."
    )
    return [
        "The model adjusted to this site is the shared model's score and, beside it, columns that only this site uses: "
        f"they stay at the site.{reaches}"
    ]


def _two_intervals(of_site: Report, metric: str) -> str:
    """Return the meaning of the intervals under repeats."""
    best = best_arm(of_site, metric)
    key = DIFFERENCES[best is not None and best[0] == "personalised"]
    # Degrees of freedom are there only where repeats draw their own holdouts.
    if (of_site[key].get(metric) or {}).get("freedom") is None:
        return (
            "Every interval is that of one typical repeat: on the same test rows, repeats tell nothing more about it."
        )
    return (
        "Behind a model's figure is the interval of one typical repeat. Behind the gain is that of the mean of all "
        "repeats, with room for the rows that their test rows have in common (Nadeau and Bengio)."
    )


def _few(of_site: Report) -> list[str]:
    """Return how many test rows have the outcome.

    It says so where that is counted, and whether these are few.
    """
    unseen = "a gain that matters may stay unseen"
    holdout, classes = of_site["holdout-rows"], of_site["holdout-classes"]
    # Without counts of the classes only the rows can be judged.
    if classes is None:
        return [f"{holdout} test rows are few: {unseen}."] if holdout < FEW_HOLDOUT_ROWS else []
    said = sentence_case(class_words(of_site))
    return [f"{said}: few, so {unseen}." if min(classes.values()) < FEW_HOLDOUT_ROWS else f"{said}."]


def left_out(sites: Sequence[SiteEntry]) -> list[str]:
    """Return which sites have no line, and why."""
    refused = [f"{site.site}: {site.reason.rstrip('.')}" for site in sites if site.status == "refused"]
    # A site in sums only took part, and so is not named among those that refused.
    hidden = [site.site for site in sites if site.status != "refused" and in_sums_only(site.shared_as)]
    lines = [f"Refused to take part: {'; '.join(refused)}."] if refused else []
    if hidden:
        lines.append(f"In sums over all sites only, as they share no figures of their own: {', '.join(hidden)}.")
    return lines


def together(found: Report, metric: str) -> list[str]:
    """Return the figures of sites that share none of their own, over all of these sites; none without a sum."""
    summed = found.get("sums-only")
    if summed is None or not summed["figures"]:
        return []
    # A metric that cannot be added up has another one in its place.
    told = metric if metric in summed["figures"] else next(iter(summed["figures"]))
    models = {"global": "shared model", "local-only": "each site's own model", "personalised": "adjusted to each site"}
    values = ", ".join(f"{models[arm]} {number(value)}" for arm, value in summed["figures"][told].items())
    name, bounds = metric_name(told), summed["auc-bounds"]
    alone = ""
    if told == "roc_auc_score" and bounds:
        name += f" (from counts, so between {number(bounds[0])} and {number(bounds[1])})"
    if found["repeats"] > 1:
        alone = " in the first repeat that has it"
    return [
        f"{summed['sites']} sites together, which share no figures of their own, on {summed['holdout-rows']} test "
        f"rows{alone}: {name}: {values}. It came as one sum, and tells of none of them by itself."
    ]


def site_line(found: Report, name: str, metric: str, arms: Sequence[str] = SITE_ARMS) -> dict[str, str]:
    """Return a site's line in the table of all sites."""
    site, cells = found["sites"][name], {}
    for arm in arms:
        title, entry = MODELS[arm], site[arm].get(metric, {})
        value = entry.get("value")
        span = f" ({interval(entry.get('low'), entry.get('high'))})" if value is not None else ""
        cells[title] = number(value) + _unbroken(span)
    if is_uncompared(found):
        return {"Site": name, TRAINED_ON.capitalize(): trained_on(site)} | cells
    holdout = ABSENT if site["holdout-rows"] is None else f"{site['holdout-rows']}"
    rows = ABSENT if site["rows"] is None else f"{site['rows']}"
    start = {"Site": name, "Test / all rows": f"{holdout} / {rows}"}
    if is_covered(found):
        start = {"Site": name, TRAINED_ON.capitalize(): trained_on(site)}
    gain = {f"Gain, + is better ({interval_name(found)})": _unbroken(gain_in_words(site, metric))}
    return start | cells | gain | {"Verdict": site_verdict(site, metric)[0]}


def untold_at(found: Report, metric: str, sites: Sequence[str]) -> list[str]:
    """Return why it cannot be told at some of these sites, a sentence each."""
    if is_uncompared(found):
        return []  # it is so at every site, and told once
    told = {site: site_verdict(found["sites"][site], metric) for site in sites}
    return [f"{site}: {why}" for site, (code, why) in told.items() if code == CANNOT_BE_TOLD]


def _unbroken(text: str) -> str:
    """Return text with unbroken brackets.

    The part in brackets stays on one line of a table.
    """
    before, bracket, after = text.partition(" (")
    return before + bracket + after.replace(" ", "\u00a0")


def order_of_sites(found: Report, metric: str) -> list[str]:
    """Return the sites by gain.

    The largest gain comes first. Sites without figures come last.
    """
    if is_uncompared(found):
        return sorted(found["sites"])
    gains = {name: best_gain(site, metric) for name, site in found["sites"].items()}
    return sorted(gains, key=lambda name: -(gain.value or 0.0) if (gain := gains[name]) else float("inf"))
