"""results.json as the tables of docs/performance.md, and the picture: `python -m benchmarks.table`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.limits import CPU, missed
from benchmarks.picture import picture
from benchmarks.workload import WORKLOADS, Workload

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results.json"
PICTURE = ROOT / "docs" / "scale.svg"
PAGE = ROOT / "docs" / "performance.md"
NOTHING = "–"
WAYS = {
    "bare": "bare PyTorch loop",
    "hand-made": "the loop with hand-made gradients",
    "one-by-one": "flfed, one by one",
    "stacked": "**flfed, stacked** (default)",
}

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
    return (
        f"{_table(rows)}\n\nThe training itself takes {found['training-seconds']:.3f} s. The arrays are within "
        f"{found['arrays-max-difference']:.0e} of the run in one process. "
        f"Measured on {_stamp(found)}, commit {found['commit']}."
    )


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


def limits(results: Results) -> str:
    """Return which limits of the figures are missed."""
    found = missed(results)
    return "Missed:\n\n" + "\n".join(f"- {sentence}" for sentence in found) if found else "No limit is missed."


PARTS = {
    "ratios": ratios,
    "wall-and-memory": wall_and_memory,
    "scale": scaling,
    "deployment": deployment,
    "trees": trees,
    "limits": limits,
}


def filled(page: str, results: Results) -> str:
    """Return a page's text with the parts between its markers as the results give them."""

    def part(found: re.Match[str]) -> str:
        return f"<!-- bench: {found[1]} -->\n{PARTS[found[1]](results)}\n<!-- end -->"

    return re.sub(r"<!-- bench: ([a-z-]+) -->\n.*?<!-- end -->", part, page, flags=re.DOTALL)


def write(results: Results) -> None:
    """Write the page and the picture."""
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")
    if "sizes" in results.get("scale", {}):
        PICTURE.write_text(picture(results["scale"]), encoding="utf-8")


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
    """Write the page and the picture from the results file."""
    write(json.loads(RESULTS.read_text()))


if __name__ == "__main__":
    main()
