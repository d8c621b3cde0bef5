"""Files of a proposal: schema, source, site and policy, with comments on the points that a person should check."""

from __future__ import annotations

import ast
import inspect
import json
import shutil
import textwrap
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

import tomli_w

from flfed.errors import count_in_words
from flfed.files import write_whole
from flfed.rows.data.origin import as_bytes
from flfed.rows.data.parsing.fields import ColumnMapping, Field, one_line
from flfed.rows.data.schema import Column
from flfed.rows.data.site import Site
from flfed.rows.proposals.columns import ColumnProposal
from flfed.rows.proposals.tables import TableProposal
from flfed.rows.proposals.targets import TargetProposal
from flfed.words import counted, render, usage_error

WIDTH = 116


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
        rows = count_in_words(unlabelled)
        lines += _comment(render("proposals.file.unlabelled", rows=rows, all=proposal.rows))
    for offer in proposal.offers:
        lines += _comment(render("proposals.file.offer", offer=offer))
    lines += [*_comment(render("proposals.file.unconfirmed")), _list("unconfirmed", schema.unconfirmed)]
    for name, column in schema.columns.items():
        lines += ["", tomli_w.dumps({"columns": {name: {}}}).strip()]
        if name == schema.target:
            lines += _not_sure(proposal.target)
        else:
            lines += _doubts(proposal.columns[name], proposal.leaks.get(name, ""))
        lines += _column(column)
    left = [f"{name}: {one.why}" for name, one in proposal.columns.items() if name not in schema.columns]
    if left:
        lines += ["", *_comment(render("proposals.file.left", columns="; ".join(left)))]
    return "\n".join(lines) + "\n"


def _doubts(proposal: ColumnProposal, leak: str) -> list[str]:
    lines = _not_sure(proposal)
    if leak:
        lines += _comment(render("proposals.file.leak"))
    if proposal.unlisted:
        lines += _comment(render("proposals.file.other", rows=count_in_words(proposal.unlisted)))
    return lines


def _not_sure(proposal: ColumnProposal | TargetProposal) -> list[str]:
    return [] if proposal.sure else _comment(render("proposals.file.doubt", why=proposal.why))


def _column(column: Column) -> list[str]:
    """Return the lines of one column."""
    lines = [f'kind = "{column.kind}"', 'description = ""  # for people']
    if column.is_number():
        unit = f"unit = {_value(column.unit)}"
        if not column.unit:
            unit = _remark(unit, render("proposals.remark.unit"))
        lines.append(unit)
        low, high = column.range or (0.0, 1.0)
        lines.append(_remark(f"range = [{low:.15g}, {high:.15g}]", render("proposals.remark.range")))
    if column.values:
        values = _list("values", column.values)
        if column.kind == "target" and len(column.values) == 2:
            values = _remark(values, render("proposals.remark.positive"))
        lines.append(values)
    if column.leak:
        lines.append(f"leak = {_value(column.leak)}")
    if column.missing:
        lines.append(_remark(_list("missing", column.missing), render("proposals.remark.missing")))
    return lines


def _remark(line: str, text: str) -> str:
    """Return a line of a file with a remark behind it."""
    return f"{line}  # {text}"


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
        # A value is never broken, whatever its length.
        if lines[-1] and len(lines[-1]) + len(part) > WIDTH - 6:
            lines.append("")
        indent = " " if lines[-1] else "    "
        lines[-1] += f"{indent}{part},"
    return "\n".join([f"{key} = [", *lines, "]"])


def source_text(rows: int, tables: int) -> str:
    """Return the `source.toml` of a person's own tables."""
    citation = render("proposals.file.citation", tables=counted(tables, "table"), rows=count_in_words(rows))
    return tomli_w.dumps({"format": 1, "licence": "not stated", "citation": citation})


def site_text(site: Site, comments: Mapping[str, str]) -> str:
    """Return the Python file of a site, with `comments` behind columns of the mapping."""
    body = [
        f"name={_literal(site.name)},",
        f"title={_literal(site.title or site.name)},",
        f"dataset={_literal(site.dataset)},",
        f"source={_literal(site.source)},",
    ]
    if site.mapping:
        body += _mapping_lines(site.mapping, comments)
    body.append(f"holdout={_literal(site.holdout)},")
    body += [f"partial={site.partial},"] if site.partial else []
    body += [] if site.has_outcome else ['holds="columns",']
    parts = (site, site.source, site.holdout, *site.mapping.values())
    used = {type(part).__name__ for part in parts if is_dataclass(part)}
    title = render("proposals.file.site")
    prepare = site.source.prepare
    code = f"\n\n{inspect.getsource(prepare)}\n" if prepare else ""
    head = f'"""{title}"""\n\nfrom flfed import {", ".join(sorted(used))}\n{code}\nsite = Site(\n'
    return head + "".join(f"    {line}\n" for line in body) + ")\n"


def _mapping_lines(mapping: ColumnMapping, comments: Mapping[str, str]) -> list[str]:
    """Return a mapping as lines of Python, with comments behind its columns."""
    lines = ["mapping={"]
    for key, value in mapping.items():
        # Comments hold values of a schema that others wrote: a line break in them would end the comment.
        remark = f"  # {one_line(comments[key])}" if key in comments else ""
        lines.append(f"    {_literal(key)}: {_literal(value)},{remark}")
    return [*lines, "},"]


def replace_mapping(text: str, mapping: ColumnMapping, comments: Mapping[str, str]) -> str | None:
    """Return the Python text of a site's package with another mapping, all else unchanged.

    None where the text has not just one call of `Site` with a mapping that is written out, or with none.
    """
    tree = ast.parse(text)
    before = _replaced_keyword(tree)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "flfed"]
    if before is None or not imports:
        return None
    lines = text.split("\n")
    end = before.value.end_lineno or 0
    column = len(lines[end - 1].encode()[: before.value.end_col_offset].decode())
    tail = lines[end - 1][column:]
    if before.arg == "mapping":
        start = before.lineno
        head = lines[start - 1].encode()[: before.col_offset].decode()
    else:
        start = end
        head = f"{lines[end - 1][:column]},\n    "
    new = "\n    ".join(_mapping_lines(mapping, comments)).removesuffix(",")
    lines[start - 1 : end] = [f"{head}{new}{tail}"]
    names = {alias.name for node in imports for alias in node.names}
    if "Field" not in names and any(isinstance(value, Field) for value in mapping.values()):
        lines.insert((imports[-1].end_lineno or 0), "from flfed import Field")
    return "\n".join(lines)


def _replaced_keyword(tree: ast.Module) -> ast.keyword | None:
    """Return the mapping of the only call of `Site`, or the source behind which one is added; None where unclear."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    calls = [call for call in calls if getattr(call.func, "id", "") == "Site"]
    if len(calls) != 1:
        return None
    by_name = {keyword.arg: keyword for keyword in calls[0].keywords}
    mapping = by_name.get("mapping")
    if mapping is None:
        # `Site(**options)` may have a mapping of its own.
        return None if None in by_name else by_name.get("source")
    return mapping if _is_written_out(mapping.value) else None


def _is_written_out(mapping: ast.expr) -> bool:
    """Return whether a mapping has only literals and `Field` with literals: nothing is computed."""
    if not isinstance(mapping, ast.Dict):
        return False
    # The key of `**BASE` is None, and no literal.
    parts: list[Any] = list(mapping.keys)
    for value in mapping.values:
        if isinstance(value, ast.Call) and getattr(value.func, "id", "") == "Field":
            parts += [*value.args, *(keyword.value for keyword in value.keywords)]
        else:
            parts.append(value)
    try:
        for part in parts:
            ast.literal_eval(part)
    except ValueError:
        return False
    return True


def _literal(value: Any) -> str:
    """Return a value as Python has it, with double quotation marks."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_literal(key)}: {_literal(one)}" for key, one in value.items()) + "}"
    if isinstance(value, tuple):
        end = "," if len(value) == 1 else ""
        return f"({', '.join(map(_literal, value))}{end})"
    if isinstance(value, FunctionType):
        return value.__name__
    return _call(value) if is_dataclass(value) else repr(value)


def _call(made: Any) -> str:
    """Return the Python expression of a dataclass, without its defaults."""
    words = []
    for place, field in enumerate(sorted(fields(made), key=lambda one: bool(one.kw_only))):
        value = getattr(made, field.name)
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if not place and not field.kw_only:
            words.append(_literal(value))
        elif value != default:
            words.append(f"{field.name}={_literal(value)}")
    return f"{type(made).__name__}({', '.join(words)})"


def policy_text(site: Site) -> str:
    """Return the `policy.toml` of a new site."""
    lines = [*_comment(render("proposals.file.policy", title=site.title or site.name)), "format = 1"]
    if site.policy.is_open:
        lines += _comment(render("proposals.file.open"))
        lines.append(_remark('disclosure = "open"', render("proposals.remark.open")))
        if site.policy.resplit:
            lines.append(_remark("resplit = true", render("proposals.remark.resplit")))
    else:
        lines.append(_remark('disclosure = "institution"', render("proposals.remark.institution")))
    if not site.has_outcome or site.partial:
        lines += [_list("outputs", site.policy.outputs)] if site.policy.outputs else []
        lines.append(f"daily-bytes = {site.policy.daily_bytes}")
    return "\n".join([*lines, ""])


THEIRS = ("policy.toml", "source.toml")
"""Files in which people decide, and which are never replaced."""


def write_new(
    folder: Path, content_by_path: Mapping[str, str | bytes], *, replace: bool = False, hint: str = ""
) -> list[Path]:
    """Write files below a folder.

    Parameters
    ----------
    folder : Path
    content_by_path : mapping of str to str or bytes
    replace : bool
        Whether existing files are replaced, except policies and descriptions of the source. A copy of each one that
        changes stays beside it.
    hint : str
        Further advice if a file exists already.

    Returns
    -------
    list of Path
        Files that are written, then the copies.

    Raises
    ------
    UsageError
        If one of them exists already and is not to be replaced: nothing is written.
    """
    files = {folder / path: as_bytes(content) for path, content in content_by_path.items()}
    try:
        there = [path for path in files if path.exists()]
        if there and not replace:
            raise usage_error("proposals.file.exists", path=there[0], hint=hint)
        for path in there:
            if path.name in THEIRS:
                del files[path]
        copies = list(map(keep_copy, files, files.values()))
        for path in files:
            path.parent.mkdir(parents=True, exist_ok=True)
        for path, content in files.items():
            write_whole(path, content)
    except OSError as error:
        raise usage_error("proposals.file.unwritten", folder=folder, reason=error.strerror) from None
    return [*files, *filter(None, copies)]


def keep_copy(path: Path, content: bytes) -> Path | None:
    """Copy a file to NAME.before-1 beside it, or the next free number, before `content` replaces it.

    Returns
    -------
    Path or None
        The copy; None where there is no such file, or the same content.
    """
    if not path.exists() or path.read_bytes() == content:
        return None
    number = 1
    while (copy := path.with_name(f"{path.name}.before-{number}")).exists():
        number += 1
    shutil.copy2(path, copy)
    return copy


def site_files(site: Site, comments: Mapping[str, str]) -> dict[str, str]:
    """Return the files of a site's package, by their path in the folder."""
    folder = f"sites/{site.name.replace('-', '_')}"
    return {
        f"{folder}/__init__.py": site_text(site, comments),
        f"{folder}/policy.toml": policy_text(site),
    }
