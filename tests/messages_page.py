"""The page of all messages, made from their classes: `python -m tests.messages_page` writes docs/messages.md.

Sections, keys and types are read off the tests' examples as they cross; words stand in the classes' docstrings.
"""

import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, get_args, get_type_hints

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

import flfed.updates.messages as package
from flfed.deployment.operator.study_description import reveals
from flfed.study.tables import OWN_FAMILIES
from flfed.updates.messages.compare import ColumnImportance, CompareReply, GroupFigure, PointCounts, WithheldColumn
from flfed.updates.messages.train import EVALUATE
from tests.updates import test_auditing, test_messages

PAGE = Path(__file__).resolve().parents[1] / "docs" / "messages.md"
POINT = PointCounts(rate=0.2, tp=12, fp=10, fn=3, tn=25, method="")
GROUP = GroupFigure(column="sex", group="female", value=0.8, low=0.7, high=0.9, method="DeLong")
IMPORTANCE = {
    "importance": (ColumnImportance(column="age", increase=0.02),),
    "withheld": (WithheldColumn(column="sex", method="withheld: fewer than 10 rows with one of its values"),),
}
FULL = [
    dataclasses.replace(example, own_family=OWN_FAMILIES[0], points=(POINT,), groups=(GROUP,), **IMPORTANCE)
    for example in test_messages.EVERY
    if isinstance(example, CompareReply)
]
"""With every section that a message may have."""
EXAMPLES = (*test_messages.EVERY, *FULL, test_auditing.REQUEST, test_auditing.REPLY)
END_OF_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[\"'(*`A-Z0-9\[])")
LONG_PARAGRAPH = 90
"""Words above which a paragraph becomes a list of its sentences."""
TYPES = {bool: "flag", bytes: "byte string", int: "whole number", float: "number", str: "text"}
PROTOCOL = "Version of the messages; another one is refused."
ENCODER_SHA256 = "The encoder's hash; a site that has this encoder is sent the hash alone, without the section."
HEAD = """# The messages

All that crosses between the coordinator and a site: {count} messages, in the order of a run. Each is one class in
`flfed/updates/messages/`, and this page is made from these classes by `python -m tests.messages_page`; a test compares
the two. What a study and a policy let out of a site is checked once more at its gate: [Protection](protection.md).

| kind | coordinator → site | site → coordinator |
|---|---|---|
{rows}

Under *what*, in brackets, stands a shape, as *[columns, 3]*. A section or key in *italics* is not always there.
Who writes a client of their own begins with [A second implementation](#a-second-implementation).
"""


TAIL = (Path(__file__).parent / "vectors" / "second_implementation.md").read_text(encoding="utf-8")


def classes() -> list[type]:
    """Return the classes of all messages, in the order of a run."""
    listed = re.findall(r"`(\w+)`", package.__doc__ or "")
    names = sorted(
        (file.name for file in pkgutil.iter_modules(package.__path__)), key=lambda name: (*listed, name).index(name)
    )
    files = [importlib.import_module(f"{package.__name__}.{name}") for name in names]
    return [
        kind
        for file in files
        for kind in vars(file).values()
        if inspect.isclass(kind) and kind.__module__ == file.__name__ and kind.__name__.endswith(("Request", "Reply"))
    ]


def kinds_of(kind: type) -> list[str]:
    """Return the kinds under which Flower carries a message."""
    word = re.sub("(Request|Reply)$", "", kind.__name__)
    own = getattr(inspect.getmodule(kind), word.upper())
    return [own, EVALUATE] if word == "Train" else [own]


def said_of(kind: type) -> dict[str, str]:
    """Return what a class says of its attributes: type, shape and words."""
    text = re.search(r"Attributes\n-+\n(.*?)(?=\n\n|\Z)", inspect.getdoc(kind) or "", re.DOTALL)
    found = {}
    for names, more in re.findall(r"^(\w[^\n]*)((?:\n +[^\n]*)*)", text[1] if text else "", re.MULTILINE):
        names, _, typed = names.partition(" : ")
        shape = "".join(re.findall(r"\[[^]]*\]|as \w+", typed)[:1])
        words = " ".join(" ".join(more.split()).split())
        choice = f"One of {typed[1:-1]}." if "," in typed and typed.startswith("{") else ""
        for name in names.split(", "):
            found[name] = " ".join(part for part in (words, choice, shape) if part)
    return found


def part_of(kind: type, field: str) -> type | None:
    """Return the dataclass that a message's field holds, if it holds one."""
    hint = get_type_hints(kind).get(field)
    for part in (hint, *get_args(hint)):
        if inspect.isclass(part) and dataclasses.is_dataclass(part):
            return part
    return None


def words(kind: type, section: str, key: str) -> str:
    """Return what the classes say of one key of one section."""
    key = {"schema": "schema_sha256", "family": "own_family"}.get(key, key).replace("-", "_")
    others = {("TrainReply", "arrays"): "delta", ("StatisticRequest", "asked"): "point"}
    section = others.get((kind.__name__, section), section)
    field, _, inner = section.partition("-")
    part = part_of(kind, field)
    if key == "protocol":
        return PROTOCOL
    if key == "encoder_sha256":
        return ENCODER_SHA256
    said = said_of(part or kind)
    return said.get(inner) or said.get(key) or said.get(field, "")


def variants(kind: type) -> Iterator[RecordDict]:
    """Yield the examples of a message, and each with nothing but what it must have."""
    for example in (example for example in EXAMPLES if type(example) is kind):
        yield example.to_record()
        least = {f.name: f.default for f in dataclasses.fields(kind) if f.default is not dataclasses.MISSING}
        lists = {f.name: () for f in dataclasses.fields(kind) if isinstance(getattr(example, f.name), tuple)}
        yield dataclasses.replace(example, **(least | lists)).to_record()


def typed(value: Any) -> str:
    """Return the type of a value that crosses."""
    if isinstance(value, list):
        return f"{typed(value[0])}s"
    return TYPES.get(type(value)) or f"array of {value.dtype}"


def rows(kind: type) -> Iterator[str]:
    """Yield the lines of a message's table."""
    records = list(variants(kind))
    for name in {name: None for record in records for name in record}:
        found = [record[name] for record in records if name in record]
        section = shown([name], len(found) == len(records))
        # Names of arrays and numbers that follow from the study stand for whatever is in the section.
        parcels = name == "sealed" and name in {field.name for field in dataclasses.fields(kind)}
        if (
            isinstance(found[0], MetricRecord)
            and name != "metrics"
            or name in ("arrays", "settings", "extra")
            or parcels
        ):
            named = "names of sites" if parcels else "as in the study"
            yield f"| {section} | {named} | {many(found[0])} | {words(kind, name, '')} |"
            continue
        keys = {key: part[key] for part in found for key in part}
        lines = [(words(kind, name, key), typed(v), all(key in part for part in found), key) for key, v in keys.items()]
        for (said, what, always), same in groupby(lines, lambda line: line[:3]):
            yield f"| {section} | {shown([key for *_, key in same], always)} | {what} | {said} |"


def many(part: ArrayRecord | ConfigRecord | MetricRecord) -> str:
    """Return what a section holds whose names follow from the study."""
    return "arrays" if isinstance(part, ArrayRecord) else "numbers"


def shown(names: list[str], always: bool) -> str:
    """Return names as code, in italics where they are not always there."""
    return ", ".join(f"`{name}`" if always else f"*`{name}`*" for name in names)


def revealed(kind: type) -> str:
    """Return what a message reveals, and what the parts of it reveal whose docstrings state it."""
    found = [in_items("**Reveals:**", reveals(kind))]
    parts: dict[type, list[str]] = {}
    for field in dataclasses.fields(kind):
        part = part_of(kind, field.name)
        if part is not None and "Reveals: " in (inspect.getdoc(part) or ""):
            parts.setdefault(part, []).append(field.name)
    found += [in_items(f"{shown(names, True)}:", reveals(part)) for part, names in parts.items()]
    return "\n\n".join(found)


def in_items(head: str, text: str) -> str:
    """Return a paragraph, as a list of its sentences where it is long."""
    if len(f"{head} {text}".split()) <= LONG_PARAGRAPH:
        return f"{head} {text}"
    sentences = "\n".join(f"- {sentence}" for sentence in END_OF_SENTENCE.split(text[:1].upper() + text[1:]))
    return f"{head}\n\n{sentences}"


def page() -> str:
    """Return the page."""
    found = classes()
    links = [f"[{kind.__name__}](#{kind.__name__.lower()})" for kind in found]
    kinds = [", ".join(f"`{name}`" for name in kinds_of(kind)) for kind in found]
    lines = "\n".join(map("| {} | {} | {} |".format, kinds[::2], links[::2], links[1::2]))
    text = [HEAD.format(count=len(found), rows=lines)]
    for kind, carried in zip(found, kinds, strict=True):
        way = "coordinator → site" if kind.__name__.endswith("Request") else "site → coordinator"
        doc = inspect.getdoc(kind) or ""
        text.append(
            f"## {kind.__name__}\n\n{carried} · {way}\n\n{doc.partition(chr(10))[0]}\n\n{revealed(kind)}\n\n"
            "| section | key | type | what |\n|---|---|---|---|\n" + "\n".join(rows(kind)) + "\n"
        )
    return "\n".join([*text, TAIL])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
