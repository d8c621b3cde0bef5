"""Files that hold a proposal: schema, source, site and policy.

Each has comments that say what a person should look at.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

import tomli_w

from flfed.errors import UsageError, count_in_words, counted
from flfed.files import write_whole
from flfed.rows.data.origin import as_bytes
from flfed.rows.data.parsing.fields import one_line
from flfed.rows.data.schema import Column
from flfed.rows.data.site import Site
from flfed.rows.proposals.columns import ColumnProposal
from flfed.rows.proposals.tables import TableProposal
from flfed.rows.proposals.targets import TargetProposal

WIDTH = 116
CONFIRM = (
    "Proposed from rows. Look at each of these columns, then take its name out of this list: while it stands here its "
    "range is no public knowledge, and differential privacy of rows is refused."
)
POLICIES = {
    "institution": 'disclosure = "institution"  # no count under 10 leaves; "open" is for public data',
    "open": "# Every figure may leave, exactly. Never serve tables so that are not public.\n"
    'disclosure = "open"    # public data: every figure exact; "institution" lets no cell under 10 leave\n'
    "resplit = true         # public data: repeats of a study may draw another holdout",
}


def schema_text(proposal: TableProposal, title: str = "") -> str:
    """Return a proposed schema as TOML."""
    schema = proposal.schema
    top: dict[str, Any] = {"format": 1, "name": schema.name, "title": title, "task": schema.task}
    top["target"] = schema.target
    if schema.group:
        top["group"] = schema.group
    if schema.unlabelled != "refuse":
        top["unlabelled"] = schema.unlabelled
    lines = [tomli_w.dumps(top).rstrip()]
    if unlabelled := proposal.target.unlabelled:
        lines += _comment(f"{count_in_words(unlabelled)} of {proposal.rows} rows have no outcome, and are left out.")
    for offer in proposal.offers:
        lines += _comment(f"Not applied: {offer}")
    lines += [*_comment(CONFIRM), _list("unconfirmed", schema.unconfirmed)]
    for name, column in schema.columns.items():
        lines += ["", tomli_w.dumps({"columns": {name: {}}}).strip()]
        if name == schema.target:
            lines += _not_sure(proposal.target)
        else:
            lines += _doubts(proposal.columns[name], proposal.leaks.get(name, ""))
        lines += _column(column)
    left = [f"{one.name}: {one.why}" for one in proposal.columns.values() if one.name not in schema.columns]
    if left:
        lines += ["", *_comment(f"Left out: {'; '.join(left)}.")]
    return "\n".join(lines) + "\n"


def _doubts(proposal: ColumnProposal, leak: str) -> list[str]:
    lines = _not_sure(proposal)
    if leak:
        lines += _comment(
            "Left out of the features, for it may leak. If it is known before the outcome, delete its leak."
        )
    if proposal.unlisted:
        few = count_in_words(proposal.unlisted)
        lines += _comment(f"Values of fewer than 10 rows, and rare ones of many, are 'other': {few} rows.")
    return lines


def _not_sure(proposal: ColumnProposal | TargetProposal) -> list[str]:
    return [] if proposal.sure else _comment(f"Not sure: {proposal.why}.")


def _column(column: Column) -> list[str]:
    """Return the lines of one column."""
    lines = [f'kind = "{column.kind}"', 'description = ""  # for people']
    if column.is_number():
        note = "" if column.unit else "  # fill in, such as mmHg"
        lines.append(f"unit = {_value(column.unit)}{note}")
        low, high = column.range or (0.0, 1.0)
        lines.append(f"range = [{low:.15g}, {high:.15g}]  # rounded outward from the rows; inclusive")
    if column.values:
        last = "  # the last one is predicted" if column.kind == "target" and len(column.values) == 2 else ""
        lines.append(_list("values", column.values) + last)
    if column.leak:
        lines.append(f"leak = {_value(column.leak)}")
    if column.missing:
        lines.append(_list("missing", column.missing) + "  # stands for not known")
    return lines


def _comment(text: str) -> list[str]:
    return textwrap.wrap(one_line(text), WIDTH, initial_indent="# ", subsequent_indent="# ")


def _value(value: Any) -> str:
    return tomli_w.dumps({"v": value})[4:].strip()  # without "v = "


def _list(key: str, values: tuple[Any, ...]) -> str:
    """Return a list of TOML, on as many lines as it needs."""
    parts = [_value(value) for value in values]
    line = f"{key} = [{', '.join(parts)}]"
    if len(line) <= WIDTH:
        return line
    lines = [""]
    for part in parts:
        # A value is never broken, however long it is.
        if lines[-1] and len(lines[-1]) + len(part) > WIDTH - 6:
            lines.append("")
        indent = " " if lines[-1] else "    "
        lines[-1] += f"{indent}{part},"
    return "\n".join([f"{key} = [", *lines, "]"])


def source_text(rows: int, tables: int) -> str:
    """Return what `source.toml` says of tables of one's own."""
    citation = f"{counted(tables, 'table')} of our own, {count_in_words(rows)} rows"
    return tomli_w.dumps({"format": 1, "licence": "not stated", "citation": citation})


def site_text(site: Site, comments: Mapping[str, str]) -> str:
    """Return the Python file of a site; `comments` stand behind columns of the mapping."""
    # Words come from a schema that others wrote: a line break in them would end the comment.
    remarks = {key: f"  # {one_line(words)}" for key, words in comments.items()}
    body = [
        f"name={_literal(site.name)},",
        f"title={_literal(site.title or site.name)},",
        f"dataset={_literal(site.dataset)},",
        f"source={_literal(site.source)},",
    ]
    if site.mapping:
        body.append("mapping={")
        for key, value in site.mapping.items():
            body.append(f"    {_literal(key)}: {_literal(value)},{remarks.get(key, '')}")
        body.append("},")
    body.append(f"holdout={_literal(site.holdout)},")
    parts = (site, site.source, site.holdout, *site.mapping.values())
    used = {type(part).__name__ for part in parts if is_dataclass(part)}
    return "\n".join(
        [
            '"""A site: its table, and how its columns are read."""',
            "",
            f"from flfed import {', '.join(sorted(used))}",
            "",
            "site = Site(",
            *(f"    {line}" for line in body),
            ")",
            "",
        ]
    )


def _literal(value: Any) -> str:
    """Return a value as Python has it, with double quotation marks."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_literal(key)}: {_literal(one)}" for key, one in value.items()) + "}"
    if isinstance(value, tuple):
        end = "," if len(value) == 1 else ""
        return f"({', '.join(map(_literal, value))}{end})"
    return _call(value) if is_dataclass(value) else repr(value)


def _call(made: Any) -> str:
    """Return the Python expression that makes a dataclass, without its defaults."""
    words = []
    for place, field in enumerate(sorted(fields(made), key=lambda one: bool(one.kw_only))):
        value = getattr(made, field.name)
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if not place and not field.kw_only:
            words.append(_literal(value))
        elif value != default:
            words.append(f"{field.name}={_literal(value)}")
    return f"{type(made).__name__}({', '.join(words)})"


def policy_text(title: str, disclosure: str) -> str:
    """Return what `policy.toml` says of a new site."""
    first = f"# Policy of this site: {one_line(title)}. Its operator decides here, and no study can loosen it."
    return f"{first}\nformat = 1\n{POLICIES[disclosure]}\n"


THEIRS = ("policy.toml", "source.toml")
"""Files of which people decide: none is replaced."""


def write_new(
    folder: Path, content_by_path: Mapping[str, str | bytes], *, replace: bool = False, hint: str = ""
) -> list[Path]:
    """Write files below a folder.

    Parameters
    ----------
    folder : Path
    content_by_path : mapping of str to str or bytes
    replace : bool
        Whether files that are there are written over, but for policies and what is said of the source.
    hint : str
        What else helps where a file is there already.

    Raises
    ------
    UsageError
        If one of them is there already, and is not to be replaced: nothing is written.
    """
    files = {folder / path: content for path, content in content_by_path.items()}
    try:
        there = [path for path in files if path.exists()]
        if there and not replace:
            raise UsageError(
                f"{there[0]} is there already, and nothing is replaced: give another name, or --output a folder{hint}"
            )
        files = {path: content for path, content in files.items() if path not in there or path.name not in THEIRS}
        for path in files:
            path.parent.mkdir(parents=True, exist_ok=True)
        for path, content in files.items():
            write_whole(path, as_bytes(content))
    except OSError as error:
        raise UsageError(f"{folder}: nothing can be written there ({error.strerror}): give another folder") from None
    return list(files)


def site_files(site: Site, comments: Mapping[str, str]) -> dict[str, str]:
    """Return the files of a site's package, by their path in the folder."""
    folder = f"sites/{site.name.replace('-', '_')}"
    return {
        f"{folder}/__init__.py": site_text(site, comments),
        f"{folder}/policy.toml": policy_text(site.title or site.name, site.policy.disclosure),
    }
