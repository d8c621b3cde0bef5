"""results.json as the tables of the pages, and the picture: `python -m benchmarks.table`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.limits import CPU, missed
from benchmarks.picture import picture
from benchmarks.workload import WORKLOADS, Workload
from flfed.records.objects import read_figure
from flfed.records.statistics.verdict import Difference, better_of, decimals_for, interval, number

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results.json"
PICTURE = ROOT / "docs" / "scale.svg"
PAGES = ("docs/performance.md", "docs/secure-sums.md", "docs/methods.md")
NOTHING = "–"
STUDIES = ("heart-disease", "preterm-birth", "taiwan-credit")
SKEWED = "skewed"
"""Studies of `benchmarks.methods`, and its cut by skewed labels."""
OWN_PARTS, WARM_START = "own-parts", "warm-start"
OWN = {
    ("ditto", "sites-mean"): "`ditto`, each site's own model, mean of sites",
    ("ditto, lam 0", "sites-mean"): "the same without a pull (`lam = 0`): training alone",
    ("fine-tuned", "sites-mean"): "beside it: the shared model fine-tuned, no strategy",
    ("fedper", "global"): "`fedper`, all test rows",
    ("fedper", "sites-mean"): "`fedper`, mean of sites",
}
WAYS = {
    "bare": "bare PyTorch loop",
    "hand-made": "the loop with hand-made gradients",
    "one-by-one": "flfed, one by one",
    "stacked": "**flfed, stacked** (default)",
}

BARE_POINT = re.compile(r"(?<!\d)\.(?=\d)")
"""Decimal point without a digit before it, in the names of methods in results.json."""

Results = dict[str, Any]


def ratios(results: Results) -> str:
    """Return the table of CPU ratios: what stands first on the page."""
    rows = [["CPU time, bare loop = 1", *(_headed(w) for w in WORKLOADS.values())]]
    rows.append([WAYS["bare"], *(f"1 ({_of(results, w, 'bare', 'cpu-seconds', '.1f')} s)" for w in WORKLOADS)])
    rows += [[WAYS[way], *(_ratio(results, w, way) for w in WORKLOADS)] for way in WAYS if way != "bare"]
    rows.append(["limit for stacked", *(f"{CPU[w, 'stacked']:.2f}" for w in WORKLOADS)])
    return f"{_table(rows)}\n\n{_where(results)}"


def wall_and_memory(results: Results) -> str:
    """Return the tables of wall time, memory and differences."""
    rows = [["wall time, bare loop = 1", *WORKLOADS]]
    rows += [[WAYS[way], *(_of(results, w, way, "wall-ratio", ".2f") for w in WORKLOADS)] for way in WAYS]
    held = [["most memory, MB, in a process of its own", *WORKLOADS]]
    held += [[WAYS[way], *(_of(results, w, way, "peak-mb", ",.0f") for w in WORKLOADS)] for way in WAYS]
    over = [["CPU time, hand-made gradients = 1", *WORKLOADS]]
    over += [[WAYS[way], *(_of(results, w, way, "cpu-over-hand-made", ".2f") for w in WORKLOADS)] for way in WAYS]
    apart = [["largest difference from the bare loop's arrays: float64; float32", *WORKLOADS]]
    apart += [[WAYS[way], *(_apart(results, w, way) for w in WORKLOADS)] for way in WAYS if way != "bare"]
    return "\n\n".join(map(_table, (rows, over, held, apart)))


def simulators(results: Results) -> str:
    """Return the time of Flower's simulation and the peers, relative to stacked."""
    rows = [
        ["", "workload", "rounds", "wall time, stacked = 1", "CPU, stacked = 1", "CPU, bare = 1", "most MB", "remark"]
    ]
    ray = results.get("W2", {}).get("ray")
    found = {"Flower's simulation on Ray": ("W2", ray)} if ray else {}
    found |= {name: ("W1", figures) for name, figures in results.get("peers", {}).get("found", {}).items()}
    for name, (workload, figures) in found.items():
        rows.append([name, workload, *_peer(figures)])
    return f"{_table(rows)}\n\nThe peers were measured on {_stamp(results.get('peers', {}))}."


def scaling(results: Results) -> str:
    """Return the table of the scale curve."""
    scale = results.get("scale", {})
    memory = ["most MB", "MB of a process that only holds the rows", "ratio"]
    rows = [["sites", "rows", "CPU s a full round", "bare loop", "ratio", *memory]]
    rows += [
        [f"{s['sites']:,}", f"{s['rows']:,}", f"{s['cpu-seconds-a-round']:.2f}",
         f"{s['bare-cpu-seconds-a-round']:.2f}", f"{s['cpu-ratio']:.2f}", f"{s['peak-mb']:,.0f}",
         f"{s['holding-mb']:,.0f} (arrays {s['arrays-mb']:,.0f})", f"{s['memory-ratio']:.2f}"]
        for s in scale.get("sizes", [])
    ]  # fmt: skip
    said = (
        f"R² of a straight line through them: {scale['r-squared']:.4f}. A site's round among the most sites takes "
        f"{scale['site-dearer']:.2f} times what it takes among the fewest."
        if "r-squared" in scale
        else "Not run yet."
    )
    return f"{_table(rows)}\n\n{said}"


def comparison(results: Results) -> str:
    """Return the table of what the comparison costs, by model and number of sites."""
    found = results.get("comparison", {})
    head = ["CPU s without", "with the comparison", "ratio", "CPU s a site", "CPU s, model of all rows", "most MB"]
    rows = [["model", "own models", "sites", *head, "measured"]]
    for name in sorted(found, key=lambda name: (name.split("-")[0], int(name.split("-")[1]))):
        (model, sites), of = name.split("-"), found[name]
        seconds = [f"{of[f'{way}-cpu-seconds']:,.1f}" for way in ("without", "with")]
        costs = [f"{of['ratio']:.1f}", f"{of['sites-cpu-seconds-a-site']:.3f}", f"{of['pooled-cpu-seconds']:,.1f}"]
        costs.append(f"{of['peak-mb']:,.0f}")
        day = f"{of['date']}, commit {of['commit']}, {of['machine']['load']}"
        rows.append([model, f"`{of['own']}`", f"{int(sites):,}", *seconds, *costs, day])
    return _table(rows) if found else "Not run yet."


def start_up(results: Results) -> str:
    """Return where the seconds of a tiny study go."""
    found = results.get("start-up", {})
    if "where" not in found:
        return f"Not measured: {found.get('error', 'not run yet')}."
    rows = [["in a fresh process", "CPU s"]]
    rows += [[name, f"{seconds['best']:.2f}"] for name, seconds in found["cpu-seconds"].items()]
    rows += [[f"of the tiny study: {name}", f"{seconds:.2f}"] for name, seconds in found["where"].items()]
    said = (
        f"The best of {found['turns']} turns. A tiny study takes {found['run-to-imports']:.2f} times the imports alone."
    )
    return f"{_table(rows)}\n\n{said}"


SUMMED = {
    "plain": "flfed, four institutions, plain updates",
    "sums": "the same with secure sums",
    "missing": "the same with one of them killed, without the deadline",
}


def deployment(results: Results) -> str:
    """Return the table of a round at three institutions, beside plain Flower's."""
    found = results.get("deployment", {})
    if "ratio" not in found:
        return "Not run yet."
    rows = [["a round beyond the training, three institutions", "seconds (low–high)", "CPU s", "rounds"]]
    for name, title in (("plain", "plain Flower, train and evaluate messages"), ("ours", "**flfed**")):
        side = found[name]
        spread = f"{side['seconds']:.2f} ({side['seconds-low']:.2f}–{side['seconds-high']:.2f})"
        rows.append([title, spread, f"{side['cpu-seconds']:.2f}", str(side["rounds"])])
    rows.append(["ratio", f"{found['ratio']:.2f}", f"{found['cpu-ratio']:.2f}", ""])
    for way, title in SUMMED.items() if "sums" in found else ():
        side = found["sums"][way]
        spread = f"{side['seconds']:.2f} ({side['seconds-low']:.2f}–{side['seconds-high']:.2f})"
        rows.append([title, spread, f"{side['cpu-seconds']:.2f}", str(side["rounds"])])
    if "sums" in found:
        ratios = [f"{found['sums'][f'{way}-ratio']:.2f}" for way in ("sums", "missing")]
        rows.append(["ratios of secure sums to plain", ", ".join(ratios), "", ""])
    return (
        f"{_table(rows)}\n\nThe training itself takes {found['training-seconds']:.3f} s. The arrays are within "
        f"{found['arrays-max-difference']:.0e} of the run in one process. "
        f"Measured on {_stamp(found)}, commit {found['commit']}."
    )


def codecs(results: Results) -> str:
    """Return the table of rounds packed as int8 both ways, beside float32."""
    found = results.get("codec", {})
    if set(WORKLOADS) - set(found):
        return f"Not measured: {found.get('error', 'not run yet')}."
    rows = [["CPU ms a round, stacked", *WORKLOADS]]
    for way, title in (("plain", "arrays as they are"), ("packed", "int8 both ways")):
        rows.append([title, *(f"{1000 * found[name][f'{way}-cpu-seconds']:.1f}" for name in WORKLOADS)])
    rows.append(["ratio", *(f"{found[name]['ratio']:.2f}" for name in WORKLOADS)])
    return _table(rows)


def trees(results: Results) -> str:
    """Return the table of boosted trees, beside XGBoost with one thread."""
    found = results.get("trees", {})
    if "ratio" not in found:
        return f"Not measured: {found.get('error', 'not run yet')}."
    seconds = (
        "CPU s",
        f"{found['sites-cpu-seconds']:.2f}",
        f"{found['xgboost-cpu-seconds']:.2f}",
        f"{found['ratio']:.2f}",
    )
    return _table([["", "all sites and the server", "XGBoost, one table, one thread", "ratio"], list(seconds)])


def secure_sums(results: Results) -> str:
    """Return the table of secure sums, beside their bare key exchanges and streams."""
    found = results.get("secure-sums", {})
    if "sizes" not in found:
        return f"Not measured: {found.get('error', 'not run yet')}."
    sizes = {entries: found["sizes"][entries] for entries in sorted(found["sizes"], key=int)}
    rows = [[f"{found['sites']} sites, {found['missing']} missing", *(f"{int(n):,} parameters" for n in sizes)]]
    for name, title, spec in (
        ("cpu-seconds", "CPU s of all sites and the server, keys and a round", ".2f"),
        ("bare-cpu-seconds", "CPU s of the bare key exchanges and streams", ".2f"),
        ("ratio", "ratio", ".2f"),
        ("vector-bytes-a-parameter", "bytes of a masked vector, a parameter", ".3f"),
        ("share-bytes-a-pair", "bytes of shares and confirmations, a pair and round", ".0f"),
    ):
        rows.append([title, *(format(size[name], spec) for size in sizes.values())])
    rows.append(["bytes of signed keys, a pair and run", *[f"{found['key-bytes-a-pair']:.0f}"] * len(sizes)])
    return _table(rows)


def sum_differences(results: Results) -> str:
    """Return the table of differences of two sums, of which one site is only in one."""
    found = results.get("sum-differences", {})
    if "seeds" not in found:
        return f"Not measured: {found.get('error', 'not run yet')}."
    studies = {name: figures for name, figures in found.items() if isinstance(figures, dict)}
    rounds = sorted(next(iter(studies.values()))["none"]["one-bit"], key=int)
    rows = [["cosine with the update of the site that is in one sum only", *(f"round {number}" for number in rounds)]]
    for name, figures in sorted(studies.items()):
        for mechanism, noised in (("none", ""), ("site-dp", ", `site-dp`")):
            for way, title in (
                ("one-bit", "model changed by one bit"),
                ("next-round", "neighbouring rounds"),
                ("in-neither", "the same, the site in neither"),
            ):
                cells = [_spread(figures[mechanism][way][number]) for number in rounds]
                rows.append([f"{name}, {figures['sites']} sites{noised}: {title}", *cells])
    return _table(rows)


def private_steps(results: Results) -> str:
    """Return the table of a protected step beside a plain one and Opacus's."""
    found = results.get("private-steps", {})
    if "shapes" not in found:
        return "Not run yet."
    rows = [["CPU µs a step of about 256 rows", *found["shapes"]]]
    for side, title in (
        ("plain", "plain SGD, bare PyTorch"),
        ("ours", "**flfed**, draws from a seed"),
        ("ours-system", "**flfed**, draws of the operating system"),
        ("opacus", "Opacus, hooks"),
    ):
        rows.append([title, *(f"{shape[f'{side}-microseconds']:.0f}" for shape in found["shapes"].values())])
    for ratio, title in (
        ("over-plain", "flfed over plain (low–high)"),
        ("system-over-plain", "with the operating system's draws"),
        ("opacus-over-ours", "Opacus over flfed"),
    ):
        spread = [[f"{shape[ratio + end]:.2f}" for end in ("", "-low", "-high")] for shape in found["shapes"].values()]
        rows.append([title, *(f"{each[0]} ({each[1]}–{each[2]})" for each in spread)])
    return f"{_table(rows)}\n\nMeasured on {_stamp(found)}, commit {found['commit']}."


def noised_counts(results: Results) -> str:
    """Return the table of noised counts, beside numpy's own normal draws."""
    found = results.get("noised-counts", {})
    if "over-numpy" not in found:
        return f"Not measured: {found.get('error', 'not run yet')}."
    spread = f"{found['over-numpy']:.2f} ({found['over-numpy-low']:.2f}–{found['over-numpy-high']:.2f})"
    rows = [
        [f"{found['counts']:,} counts of one answer", "CPU ms"],
        ["numpy's normal draws, from a seed", f"{found['numpy-milliseconds']:.2f}"],
        ["**flfed**, draws of the operating system", f"{found['ours-milliseconds']:.2f}"],
        ["flfed over numpy (low–high)", spread],
    ]
    return _table(rows)


def dashboard(results: Results) -> str:
    """Return the table of the app's pages, on a hundred sites and five hundred rounds."""
    found = results.get("dashboard", {})
    if "pages" not in found:
        return "Not run yet."
    rows = [["page", "seconds of a turn to it", "kB sent", "CPU s of a look while the study runs"]]
    for name, page in found["pages"].items():
        look = found["looks"].get(name)
        cost = f"{look['cpu-seconds']:.3f}" if look else ""
        rows.append([name, f"{page['seconds']:.2f}", f"{page['bytes'] / 1000:.0f}", cost])
    first = f"{found['first-chart-seconds']:.2f} s (at worst {found['first-chart-worst']:.2f})"
    return (
        f"{_table(rows)}\n\nThe first chart of a server that has just started stands after {first}, "
        f"of {found['turns']} starts. Measured on {_stamp(found)}, commit {found['commit']}."
    )


TELLING = ("better", "worse")
"""Conclusive results of `shows`."""


def methods(results: Results) -> str:
    """Return the table of what each method gained on plain averaging."""
    found = results.get("methods", {})
    studies = [name for name in (*STUDIES, SKEWED) if name in found]
    if not studies:
        return "Not run yet."
    by_study = {name: found[name]["methods"] if name == SKEWED else found[name] for name in studies}
    rows = [["AUC minus that of `fedavg` (95 % CI)", *studies]]
    for method in sorted(by_study[studies[0]], key=lambda name: (name != "fedavg", name)):
        name, comma, settings = method.partition(",")
        rows.append([f"`{name}`{comma}{BARE_POINT.sub('0.', settings)}"])
        rows[-1] += [_gain(figures.get(method, {})) for figures in by_study.values()]
    seeds = ", ".join(map(str, found[SKEWED]["seeds"])) if SKEWED in found else "none yet"
    return f"{_table(rows)}\n\nSeeds of the ten partitions of `skewed`: {seeds}. Measured on {_stamp(found)}."


def _gain(figures: Results) -> str:
    """Return a method's AUC where it is the base, its gain, or why it has none."""
    gain = figures.get("gain-roc_auc_score")
    if "roc_auc_score" not in figures:
        stopped = f"stopped in {figures['stopped']} of 10" if "stopped" in figures else "refused"
        return stopped if figures else NOTHING
    if gain is None:
        return f"{number(figures['roc_auc_score'])} itself"
    if gain["value"] is None:
        return NOTHING
    said = shows({"roc_auc_score": gain}, "roc_auc_score")
    loss = shows({"log_loss": figures["gain-log_loss"]}, "log_loss")
    text = _with_interval(gain)
    more = [word for word, of in ((said, said), (f"log loss {loss}", loss)) if of in TELLING]
    return ": ".join([text, ", ".join(more)]) if more else text


def own_parts(results: Results) -> str:
    """Return the table of what sites' own parts of the model gained on plain averaging."""
    found = results.get(OWN_PARTS, {})
    studies = [name for name in STUDIES if name in found]
    if not studies:
        return "Not run yet."
    rows = [["AUC minus plain averaging (95 % CI), 10 re-splits", *studies]]
    for (method, arm), title in OWN.items():
        rows.append([title, *(_shown(found[name][method].get(f"gain-{arm}")) for name in studies)])
    return f"{_table(rows)}\n\nMeasured on {_stamp(found)}."


def warm_starts(results: Results) -> str:
    """Return the table of what the others' model gives a hospital that joins late."""
    found = results.get(WARM_START, {})
    hospitals = {name: figures for name, figures in found.items() if name not in ("date", "machine")}
    if not hospitals:
        return "Not run yet."
    head = ["hospital", "its training rows", "scratch", "drawn", "as it is", "drawn − scratch", "as it is − scratch"]
    rows = [[*head[:2], *(f"AUC, {arm}" for arm in head[2:5]), *(f"{gain} (95 % CI)" for gain in head[5:])]]
    for name, sizes in hospitals.items():
        for size in sorted(sizes, key=int):
            aucs = [number(sizes[size][arm]) for arm in ("scratch", "drawn", "as-it-is")]
            gains = [_shown(sizes[size][f"gain-{arm}"]) for arm in ("drawn", "as-it-is")]
            rows.append([name, size, *aucs, *gains])
    return f"{_table(rows)}\n\nMeasured on {_stamp(found)}."


def _with_interval(gain: Results) -> str:
    """Return a difference with its interval, with as many decimals as keep the bounds' side of 0 visible."""
    found = read_figure(gain)
    digits = decimals_for(Difference(found.value, found.low, found.high))
    ends = interval(found.low, found.high, digits, signed=True)
    return f"{number(found.value, digits, signed=True)} ({ends})"


def shows(gain: Results, metric: str) -> str:
    """Return whether a method is better than its comparator, in words."""
    figure = read_figure(gain[metric])
    if figure.value is None or figure.low is None or figure.high is None:
        return "inconclusive"
    if figure.low <= 0 <= figure.high:
        return "no difference shown"
    return "better" if (figure.low > 0) == (better_of(metric) == "higher") else "worse"


def _shown(gain: Results | None) -> str:
    """Return a gain in AUC with its interval, and in words where that leaves out 0."""
    if gain is None or gain["value"] is None:
        return NOTHING
    said = shows({"roc_auc_score": gain}, "roc_auc_score")
    return ": ".join([_with_interval(gain), *([said] if said in TELLING else [])])


def limits(results: Results) -> str:
    """Return which limits of the figures are missed."""
    found = missed(results)
    return "Missed:\n\n" + "\n".join(f"- {sentence}" for sentence in found) if found else "No limit is missed."


PARTS = {
    "ratios": ratios,
    "wall-and-memory": wall_and_memory,
    "simulators": simulators,
    "scale": scaling,
    "comparison": comparison,
    "start-up": start_up,
    "deployment": deployment,
    "codec": codecs,
    "trees": trees,
    "secure-sums": secure_sums,
    "sum-differences": sum_differences,
    "private-steps": private_steps,
    "noised-counts": noised_counts,
    "dashboard": dashboard,
    "methods": methods,
    "own-parts": own_parts,
    "warm-start": warm_starts,
    "limits": limits,
}


def filled(page: str, results: Results) -> str:
    """Return a page's text with the parts between its markers as the results give them."""

    def part(found: re.Match[str]) -> str:
        return f"<!-- bench: {found[1]} -->\n{PARTS[found[1]](results)}\n<!-- end -->"

    return re.sub(r"<!-- bench: ([a-z-]+) -->\n.*?<!-- end -->", part, page, flags=re.DOTALL)


def write(results: Results) -> None:
    """Write the pages and the picture."""
    for name in PAGES:
        page = ROOT / name
        page.write_text(filled(page.read_text(encoding="utf-8"), results), encoding="utf-8")
    if "sizes" in results.get("scale", {}):
        PICTURE.write_text(picture(results["scale"]), encoding="utf-8")


def _spread(figure: dict[str, Any]) -> str:
    return f"{figure['mean']:.2f} ± {figure['sd']:.2f} ({figure['lowest']:.2f} to {figure['highest']:.2f})"


def _headed(workload: Workload) -> str:
    model = "" if workload.hidden else ", logistic"
    share = "" if workload.fraction == 1 else f", {workload.fraction:.0%} a round"
    return f"{workload.name}: {workload.sites:,} × {workload.rows:,}{share}{model}"


def _of(results: Results, workload: str, way: str, figure: str, spec: str) -> str:
    value = results.get(workload, {}).get(way, {}).get(figure)
    return NOTHING if value is None else format(value, spec)


def _ratio(results: Results, workload: str, way: str) -> str:
    parts = [_of(results, workload, way, f"cpu-ratio{end}", ".2f") for end in ("", "-low", "-high")]
    return NOTHING if NOTHING in parts else f"{parts[0]} ({parts[1]}–{parts[2]})"


def _apart(results: Results, workload: str, way: str) -> str:
    names = ("arrays-max-difference-float64", "arrays-max-difference")
    return "; ".join(_of(results, workload, way, name, ".0e") for name in names)


def _peer(figures: dict[str, Any]) -> Iterator[str]:
    if "error" in figures:
        yield from (NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, f"does not run: {figures['error']}")
        return
    yield str(figures["rounds"])
    for name, spec in (
        ("times-slower-than-stacked", ".1f"),
        ("cpu-over-stacked", ".1f"),
        ("cpu-ratio", ".2f"),
        ("peak-mb", ",.0f"),
    ):
        yield format(figures[name], spec) if name in figures else NOTHING
    yield figures.get("note", "")


def _where(results: Results) -> str:
    """Return when and where the tables were measured: what was measured again later stands in a list."""
    again = [f"- {part} on {_stamp(stamp)}" for part, stamp in results.get("later", {}).items()]
    lines = [f"Measured on {_stamp(results)}."]
    if again:
        lines += ["Measured again later:", "\n".join(again)]
    return "\n\n".join(lines)


def _stamp(results: Results) -> str:
    """Return the day and the machine of a measurement."""
    machine = results.get("machine", {})
    said = ", ".join(
        str(machine[name]) for name in ("processor", "cores", "memory", "versions", "load") if name in machine
    )
    return f"{results.get('date', 'no day yet')}: {said}"


def _table(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def main() -> None:
    """Write the pages and the picture from the results file."""
    write(json.loads(RESULTS.read_text()))


if __name__ == "__main__":
    main()
