"""Panels of the page Curves.

They show how well the shared model ranks, and whether its probabilities hold.
"""

from __future__ import annotations

import streamlit as st

from flfed.records.charts.axes import is_stretched
from flfed.records.charts.colours import MOST_COLOURED, Looks, one_in_colour
from flfed.records.charts.curves import calibration_chart
from flfed.records.charts.histograms import scores_chart
from flfed.records.dashboard import run_page
from flfed.records.dashboard.components import sections
from flfed.records.dashboard.components.figure import figure
from flfed.records.dashboard.components.tables import table
from flfed.records.sections import scores
from flfed.records.statistics import Report
from flfed.records.statistics.listed.noised_scores import (
    NO_CURVES,
    NOISE,
    SCORES,
    count_lines,
    figure_lines,
    lost_in_words,
    scores_in_words,
    whose_scores,
)
from flfed.records.statistics.score_curves import (
    LEAST_ROWS,
    calibration,
)
from flfed.records.statistics.score_tables import (
    CALIBRATION_READ,
    NOT_SHOWN,
    SITES_DRAWN,
    STRETCHED,
    Found,
    calibration_line,
    drawn_first,
    group_lines,
    held_in_words,
    is_together,
)
from flfed.records.statistics.verdict import number
from flfed.records.text import escape, heading

MOST_DRAWN = 12
"""Sites that a reader can pick: more colours and dashes are not told apart."""
HOW_TO_READ = f"""
**ROC and AUC.** Take one row with the outcome and one without. AUC is how often the model gives the one with the
outcome the higher probability: .5 is the toss of a coin (the dashed line), 1 is always. Each point of the curve is one
place to draw the line between yes and no: how many of those with the outcome are found (up), at the price of how many
false alarms among those without it (to the right).

**Precision and recall.** Of all alarms, how many are right (up), when so many of the outcomes are found (to the right).
The thin dashed line in a site's colour is what chance alone would reach: the share of its rows with the outcome. Sites
can be compared by these curves only where these shares are alike. Average precision is the area below.

**Calibration.** Rows are put into groups of like predictions, of {LEAST_ROWS} or more. On the dashed line a prediction
holds: of rows with a predicted probability of .3, three in ten have the outcome. A point above it means that the model
says too little, below it too much. Where an interval misses the line, chance is no likely reason; but of twenty groups
of a model that holds, about one misses it by chance. A miss that the width of the bins (below) may explain is not
counted. Few rows make wide intervals, in which a prediction holds easily: so the mean over all rows is held against the
share of all that have the outcome, too.

**Why two figures of each kind.** Sites do not send the predictions of their rows, only how many rows of each class
fall into each of 256 bins of predictions. The curves are drawn from these counts, in which two rows of one bin cannot
be told apart: what that can change at most stands behind the figure as ±. The figure "from rows" was computed by the
site itself, before anything left it; that over all sites is computed from rows where one machine holds all tables, and
from these same counts where the sites are apart.

**What is not shown.** {NOT_SHOWN}
"""


AS_THEY_CAME = (
    "Each line is how far the noise on its bar may reach, 95 % of the time; where it comes down to 0 there may be "
    "nobody at all. In the table the counts are as they came, which may be below 0, and so they go into the figures."
)


def noised(report: Report, repeat: int | None = None) -> None:
    """Show noised counts by score with the figures that follow from them, in place of curves.

    `report` is of one repeat; `repeat` is its number where there are several.
    """
    st.markdown(heading("How the scores lie", repeat))
    st.caption(NO_CURVES)
    payload = report.get(SCORES)
    counts = {} if payload is None else whose_scores(payload)
    if payload is None or not counts:
        why = (payload or {}).get("reason", "") or "none came"
        st.info(escape(f"There are no counts by score to show: {why}."))
        return
    table(figure_lines(report))
    for line in lost_in_words(report, "roc_auc_score"):
        st.caption(escape(line))
    names = list(counts)
    whose = str(st.selectbox("Rows of", names, key="noised-of", width=320)) if len(names) > 1 else names[0]
    lines, unit = count_lines(counts[whose]), f"{report['privacy']['unit']}s"
    title = f"Test rows by class and predicted probability ({whose})"
    says = "; ".join(scores_in_words(report, whose if whose in payload["sites"] else ""))
    figure(st, escape(title), scores_chart(lines, unit), lines, key="noised-counts", says=f"{title}. {says}")
    st.caption(escape(f"{AS_THEY_CAME} {NOISE}: {number(lines[0][NOISE], 1)}."))
    for line in scores_in_words(report, whose if whose in payload["sites"] else ""):
        st.markdown(f"- {escape(line)}")


def choose(found: Found) -> Found:
    """Return the score counts to draw.

    They are all sites together, and the sites that the reader picks, at first those of most rows.
    """
    sites = [name for name in found if not is_together(name)]
    if len(sites) < 2:
        return found
    first = drawn_first(found)
    more = f" (of {len(sites)}; at first those with most test rows)" if len(sites) > SITES_DRAWN else ""
    chosen = st.multiselect(
        f"Sites{more}", sites, default=first, max_selections=MOST_DRAWN, key=f"curves-sites-{'-'.join(first)}"
    )
    return {name: counts for name, counts in found.items() if is_together(name) or name in chosen}


def ranking(found: Found, looks: Looks, report: Report, repeat: int | None = None) -> None:
    """Show the ROC and precision-recall curves with their areas.

    Curves are of those that have rows of both classes.
    """
    shown, looks = _in_colour({name: counts for name, counts in found.items() if counts.has_both}, looks)
    sections.show(scores.ranking(found, shown, looks, report), repeat=repeat)


def _in_colour(found: Found, looks: Looks) -> tuple[Found, Looks]:
    """Return curves and their looks.

    Of more sites than colours, one that the reader picks is last and in colour.
    """
    sites = [name for name in found if not is_together(name)]
    if len(sites) <= MOST_COLOURED:
        return found, looks
    asked = run_page.of_address("site")
    first = sites.index(asked) if asked in sites else 0
    label = f"Show in colour, with the other {len(sites) - 1} sites in grey"
    chosen = str(st.selectbox(label, sites, index=first, key=f"curves-colour-{sites[first]}", width=320))
    # What comes last is drawn above all others.
    order = sorted(found, key=lambda name: (is_together(name), name == chosen))
    return {name: found[name] for name in order}, looks | one_in_colour(sites, chosen)


def calibrated(found: Found, chosen: Found, report: Report, looks: Looks, repeat: int | None = None) -> None:
    """Show what was predicted against what happened.

    The chosen ones are told in words, and one site is drawn with intervals.
    """
    st.markdown(heading("Whether its probabilities hold", repeat))
    table([calibration_line(name, counts, report) for name, counts in chosen.items()])
    sites = [name for name, counts in found.items() if not is_together(name) and counts.rows >= LEAST_ROWS]
    together = [name for name in found if is_together(name)]
    label = f"Draw {together[0]}, and this site" if together else "Draw this site"
    picked = [run_page.choose_site(sites, label=label)] if sites else []
    groups = {name: of for name in [*together, *picked] if (of := calibration(found[name]))}
    lines = group_lines(groups)
    title, said = (
        "Observed share against predicted probability, with 95 % CI",
        "; ".join(f"{name}: predictions hold in {held_in_words(of)}" for name, of in groups.items()),
    )
    drawn = calibration_chart(lines, list(groups), looks)
    figure(st, title, drawn, lines, key="calibration", says=f"Calibration. {said}")
    st.caption(CALIBRATION_READ + (STRETCHED if lines and is_stretched(lines) else ""))


def how_to_read() -> None:
    """Explain the curves in plain words, folded away."""
    with st.expander("How to read these curves"):
        st.markdown(HOW_TO_READ)
