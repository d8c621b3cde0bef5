"""Write docs/reference from the code: `make docs`. A test compares the two."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_type_hints

import click
import typer

import flfed
from docs.make.docstrings import Docstring, Entry, read, said_of_value
from docs.make.keys import REQUIRED, Key, Undocumented, default_in_words, keys_of
from flfed import registry
from flfed.cli.commands import app
from flfed.rows.data import holdout, site, sources
from flfed.rows.data.datasets import SourceDescription, SourceFile
from flfed.rows.data.parsing.fields import Field
from flfed.rows.data.parsing.limits import Limits
from flfed.rows.data.policy import Policy
from flfed.rows.data.schema import Column, Schema
from flfed.study import study as studies
from flfed.study.analysis import Analysis
from flfed.study.study_text import SUMMARY
from flfed.study.tables import Expectation, Expected, Named
from flfed.updates.parts.every_part import PARTS

ROOT = Path(__file__).resolve().parents[2]
_DIRECTIVE = re.compile(r" +# doctest: .*")
FOLDER = ROOT / "docs" / "reference"
MADE = "<!-- Made from the code by `make docs`: change the docstring there, not this page. -->"
COLUMNS = ("key", "type", "default", "meaning", "example")
SITE_CLASSES = (
    site.Site, site.Mapped, Field, sources.Csv, sources.Parquet, sources.Excel, sources.Sql, sources.Frame,
    Limits, holdout.Holdout, holdout.HoldoutByTime,
)  # fmt: skip
LISTED_WORDS = {
    "model": "The settings of each model are in the same table.",
    "strategy": "The settings of each strategy are in the same table.",
    "mechanism": "The settings of each mechanism are in the same table. Without it a study gives no privacy guarantee.",
    "codec": "The settings of each codec are in the same table. Without it updates are sent uncompressed.",
    "statistic": "Figures from sums over all rows, without a model. The settings of each are in the same table.",
}


BESIDE = {
    "strategy": ("rounds",), "mechanism": ("secure-aggregation",),
    "model": ("warm-start", "start-sha256", "frozen-layers"),
}  # fmt: skip
"""Keys of such a table that belong to the study itself."""


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [headers, ["---"] * len(headers), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def keys_table(keys: Iterable[Key]) -> str:
    """Return the table of some keys."""
    return table(COLUMNS, [key.row() for key in keys])


def page(title: str, *parts: str) -> str:
    """Return a page's text."""
    return "\n\n".join([f"# {title}", MADE, *(part for part in parts if part)]) + "\n"


def sentences(said: Docstring) -> str:
    """Return the sentences of a docstring before its lists."""
    return " ".join([said.summary, *said.paragraphs])


def notes(said: Docstring) -> str:
    """Return the notes of a docstring."""
    return _text(said.texts.get("Notes", ""))


def _text(lines: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", lines) if part.strip())


def section(title: str, kind: type, *, python: bool = False, more: str = "") -> str:
    """Return a class as a section: summary, keys, notes."""
    said = read(kind)
    intro = re.sub(r" Parameters as for .*", "", sentences(said)) if python else sentences(said)
    parts = (f"## {title}", intro, more, keys_table(keys_of(kind, python=python)), *said.closing, notes(said))
    return "\n\n".join(part for part in parts if part)


def whole_file(path: str, why: str) -> str:
    """Return a file of the repository, as an example."""
    return f"## A whole file\n\n{why}: `{path}`.\n\n```toml\n{(ROOT / path).read_text(encoding='utf-8').strip()}\n```"


def study_page() -> str:
    """Return the page of the study's file."""
    intro = (
        "A study is one TOML file: purpose, dataset, model, training plan, strategy, seed. It may be in any folder; "
        "shipped studies have names. `flfed study new` writes one, `flfed study check FILE` checks one, and "
        "`--set table.key=value` changes a key for one run. A key that is not on this page is refused."
    )
    parts = [f"## Top of the file\n\n{keys_table(top_keys())}"]
    parts += [_table_section(name) for name in studies._TABLES]
    parts += [listed_section(name) for name in studies.KINDS]
    parts += [expected_section(), sweep_section()]
    return page(
        "The study file", intro, *parts,
        whole_file("flfed/studies/heart-disease.toml", "Output of `flfed study show heart-disease`"),
    )  # fmt: skip


def top_keys() -> list[Key]:
    """Return the keys before the first table of a study."""
    return [_study_key(name) for name in studies._TOP]


def _study_key(name: str, *, any_key: bool = False) -> Key:
    """Return a key that the class `Study` itself describes.

    Raises
    ------
    Undocumented
        If it has no meaning or no example there.
    """
    attribute = registry.snake(name)
    meaning, entry = meaning_of(studies.Study, attribute), read(studies.Study).entry(attribute)
    own = [one for one in (entry.examples if entry else ()) if any_key or one.partition(" = ")[0] == name]
    if not own:
        raise Undocumented(f"Study.{attribute} has no example: end its meaning with Example: `{name} = ...`.")
    field = {field.name: field for field in dataclasses.fields(studies.Study)}.get(attribute)
    default = REQUIRED if field is None or field.default is dataclasses.MISSING else field.default
    hints = get_type_hints(studies.Study, include_extras=True)
    return Key(name, hints.get(attribute, Literal[1]), default, meaning, own[0])


def _table_section(name: str) -> str:
    """Return the section of one table, and of those within it."""
    parts = [section(f"[{name}]", studies._TABLES[name])]
    for (outer, key), of in studies._NESTED.items():
        # A nested table of a kind that is on this page already needs no second list of its keys.
        if outer == name and of not in studies._TABLES.values():
            parts.append("#" + section(f"[{outer}.{key}]", of))
    return "\n\n".join(parts)


def listed_section(name: str) -> str:
    """Return the section of a table that names a listed thing, with the settings of each."""
    kind = studies.KINDS[name]
    known = [one for one in studies.listed_names(kind) if one not in registry.others(kind)]
    default = "none" if kind in ("mechanism", "codec") else REQUIRED
    rows = [Key("name", Literal[tuple(known)], default, meaning_of(Named, "name"), f'name = "{known[0]}"')]
    rows += [_study_key(key) for key in BESIDE.get(kind, ())]
    parts = [f"## [{name}]", LISTED_WORDS[kind], keys_table(rows)]
    for one in known:
        of = Analysis if one == SUMMARY else registry.load(kind, one)
        keys = keys_of(of)
        said = read(of)
        parts += [f'### [{name}] with name = "{one}"', sentences(said), keys_table(keys) if keys else "", *said.closing]
    return "\n\n".join(part for part in parts if part)


def meaning_of(kind: type, name: str) -> str:
    """Return the meaning of an attribute, from its class.

    Raises
    ------
    Undocumented
        If it has none.
    """
    said = read(kind).entry(name)
    if said is None or not said.text:
        raise Undocumented(f"{kind.__qualname__}.{name} has no meaning: write one into the class's docstring")
    return said.text


def expected_section() -> str:
    """Return the section of the figures for `flfed study verify`."""
    repeats, figure = keys_of(Expected, without=("figures",)), keys_of(Expectation, without=("path",))
    return "\n\n".join(
        ["## [expected]", sentences(read(Expected)), keys_table(repeats), "### A figure of [expected]",
         f"A table under the figure's path. {meaning_of(Expectation, 'path')}", keys_table(figure)]
    )  # fmt: skip


def sweep_section() -> str:
    """Return the section of the grid."""
    key = _study_key("sweep", any_key=True)
    row = ["*any key of the study*", "list of values", default_in_words(REQUIRED), key.meaning, f"`{key.example}`"]
    return f"## [sweep]\n\n{table(COLUMNS, [row])}"


def policy_page() -> str:
    """Return the page of a site's policy."""
    said = read(Policy)
    intro = (
        "A site's permissions are in `policy.toml` beside its `__init__.py`, and no study can loosen them. Without the "
        "file, every default below applies, which is the strictest policy."
    )
    return page(
        "The policy file", intro, keys_table(keys_of(Policy)), notes(said),
        whole_file("sites/cleveland/policy.toml", "Of a site with public data"),
    )  # fmt: skip


def schema_page() -> str:
    """Return the page of a dataset's schema."""
    intro = (
        "A dataset is a folder `datasets/NAME/`. Its `schema.toml` defines the columns. Every site maps its own table "
        "to them, whatever its columns are called. `flfed data new` proposes a schema from tables."
    )
    return page(
        "The schema file", intro, section("Top of the file", Schema), section("[columns.NAME]", Column),
        whole_file("datasets/wine/schema.toml", "The shortest one that comes with flfed"),
    )  # fmt: skip


def source_page() -> str:
    """Return the page of a dataset's source."""
    intro = (
        "`source.toml`, beside the schema, has the origin of the data, its licence, and its files with their hashes."
    )
    return page(
        "The source file of a dataset", intro, section("Top of the file", SourceDescription),
        section("[[files]]", SourceFile),
        whole_file("datasets/heart-disease/source.toml", "Of a dataset with four files"),
    )  # fmt: skip


def site_page() -> str:
    """Return the page of a site's package."""
    intro = (
        "A site is a folder with one Python file, `sites/NAME/__init__.py`, which ends with `site = Site(...)`: the "
        "source of its rows, the local names of its columns, and the holdout. `flfed site new` proposes one, and "
        "`flfed site check NAME` checks it. Its classes are below: `from flfed import Csv, Field, Holdout, Site`."
    )
    parts = [section(f"{kind.__name__}", kind, python=True) for kind in SITE_CLASSES]
    return page("The site package: source, mapping, holdout", intro, *parts)


def commands_page() -> str:
    """Return the page of all commands, from the parser's own help."""
    intro = (
        "Every command, as in `--help`. Exit codes: 0 completed, 1 failed, 2 wrong use or wrong input, 3 stopped. "
        "With `--json` a command prints one object on standard output; everything else goes to standard error."
    )
    return page(
        "Commands", intro, *(command_section(words, one) for words, one in commands(typer.main.get_command(app)))
    )


def commands(group: click.Command, *words: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command that is no group, with its words."""
    if not isinstance(group, click.Group):
        yield words, group
        return
    for name, command in group.commands.items():
        yield from commands(command, *words, name)


def command_section(words: Sequence[str], command: click.Command) -> str:
    """Return one command as a section."""
    context = click.Context(command, info_name=" ".join(["flfed", *words]))
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    rows = [_parameter(one) for one in command.params if not getattr(one, "hidden", False)]
    headers = ("argument or option", "type", "default", "meaning")
    example = (command.epilog or "").removeprefix("Example: ")
    shown = f"```console\n$ {usage}\n```\n\n{f'Example: `{example}`' if example else ''}"
    parts = (f"## flfed {' '.join(words)}", command.help, shown.strip(), table(headers, rows) if rows else "")
    return "\n\n".join(part for part in parts if part)


def _parameter(given: click.Parameter) -> list[str]:
    """Return the line of one argument or option.

    Raises
    ------
    Undocumented
        If it has no help.
    """
    what = getattr(given, "help", None)
    if not what:
        raise Undocumented(f"{given.name!r} of a command has no help: write it where the command takes it")
    if isinstance(given, click.Option):
        names = ", ".join(f"`{name}`" for name in (*given.opts, *given.secondary_opts))
        kind = "flag" if given.is_flag else given.make_metavar(click.Context(click.Command("flfed")))
        # A bar in code is written otherwise on GitHub than in Python's Markdown.
        kind = kind if kind == "flag" else f"`{'`, `'.join(kind.strip('[]').split('|'))}`"
    else:
        names, kind = f"`{given.human_readable_name.replace('|', '` or `')}`", given.type.name
    kind += ", several times" if given.multiple or given.nargs == -1 else ""
    plain = given.default in (None, "", (), [], False)
    return [names, kind, "**required**" if given.required else "–" if plain else f"`{given.default}`", what]


USES: Mapping[str, str] = {
    "Run a study": "federate run Result Model load runs resume audit Study UsageError",
    "Describe a site": "Site Csv Excel Parquet Sql Frame Field Holdout HoldoutByTime Policy Mapped Limits",
    "Extend": "FedAvg Mechanism Codec Arrays layered_outputs",
}
"""The public names by what they are for, in the order in which a reader needs them."""


def python_page() -> str:
    """Return the list of the public names of `flfed`, by use."""
    intro = "All names of `from flfed import …`. Any other name in a module may change with any version."
    return page("Python", intro, *(use_section(title) for title in USES))


def use_section(title: str) -> str:
    """Return the names of one use as a list."""
    rows = [[f"[{name}](python/{name}.md)", docstring_of(name).summary] for name in USES[title].split()]
    return f"## {title}\n\n{table(('name', 'what it is'), rows)}"


def docstring_of(name: str) -> Docstring:
    """Return the docstring of a public name, or the text after its value."""
    thing = getattr(flfed, name)
    if inspect.isclass(thing) or inspect.isfunction(thing):
        return read(thing)
    return read(meaning_of_value(importlib.import_module(flfed._PUBLIC[name]), name))


def name_page(name: str) -> str:
    """Return the page of one public name.

    Raises
    ------
    Undocumented
        If it has no example.
    """
    thing = getattr(flfed, name)
    said = docstring_of(name)
    if "Examples" not in said.texts:
        raise Undocumented(f"{name} has no example: write one into its docstring")
    if not inspect.isclass(thing) and not inspect.isfunction(thing):
        return page(name, *docstring_parts(said))
    said = with_inherited(thing, said) if inspect.isclass(thing) else said
    parts = [f"```text\n{signature_of(name, thing)}\n```", *docstring_parts(said)]
    for method, of in methods_of(thing) if inspect.isclass(thing) else ():
        parts += [f"## {name}.{method}", *docstring_parts(read(of))]
    return page(name, *parts)


def with_inherited(kind: type, said: Docstring) -> Docstring:
    """Return a class's docstring with the parameters that a base describes."""
    if issubclass(kind, Exception):
        return said
    own = [read(base) for base in kind.__mro__[1:]]
    names = [name for name in inspect.signature(kind).parameters if said.entry(name) is None]
    found = {name: next((of.entry(name) for of in own if of.entry(name)), None) for name in names}
    more = [Entry((name,), entry.type, entry.text) for name, entry in found.items() if entry is not None]
    section = "Attributes" if "Attributes" in said.entries else "Parameters"
    entries = {**said.entries, section: [*said.entries.get(section, ()), *more]}
    summary = re.sub(r" Parameters as for .*", "", said.summary)
    return dataclasses.replace(said, summary=summary, entries={title: of for title, of in entries.items() if of})


def meaning_of_value(module: Any, name: str) -> str:
    """Return the text after a public value's definition.

    Raises
    ------
    Undocumented
        If there is none.
    """
    said = said_of_value(module, name)
    if not said:
        raise Undocumented(f"{module.__name__}.{name} has no text after its definition")
    return said


def signature_of(name: str, thing: Callable[..., Any]) -> str:
    """Return a call of a function or class, without types."""
    empty = inspect.Parameter.empty
    if inspect.isclass(thing) and issubclass(thing, Exception):
        return f"{name}(message)"
    found = inspect.signature(thing)
    bare = [one.replace(annotation=empty) for one in found.parameters.values() if one.name != "self"]
    text = str(found.replace(parameters=bare, return_annotation=empty))
    # A default that is made for each call has no short form.
    short = name + re.sub(r"<[^>]*>", "...", text)
    return textwrap.fill(short, 100, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def methods_of(kind: type) -> list[tuple[str, Any]]:
    """Return the public methods and properties that flfed itself defines, with their docstrings."""
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.startswith("flfed"):
            found |= {name: of for name, of in vars(base).items() if not name.startswith("_") and _says(of)}
    return sorted(found.items())


def _says(of: Any) -> bool:
    kinds = (property, classmethod, staticmethod)
    return (inspect.isfunction(of) or isinstance(of, kinds) or hasattr(of, "attrname")) and bool(of.__doc__)


def docstring_parts(said: Docstring) -> list[str]:
    """Return a docstring as Markdown."""
    listed = [_entries(title, entries) for title, entries in said.entries.items() if entries]
    lines = [_DIRECTIVE.sub("", line) for line in said.texts.get("Examples", "").strip().splitlines()]
    example = "\n".join(["```pycon", *lines, "```"]) if lines else ""
    return [said.summary, *said.paragraphs, example, *listed, notes(said), *said.closing]


def _entries(title: str, entries: Sequence[Entry]) -> str:
    rows = [[", ".join(f"`{name}`" for name in one.names), one.type, one.text] for one in entries]
    what = {"Parameters": "parameter", "Attributes": "attribute", "Returns": "returns", "Raises": "raises"}.get(
        title, title
    )
    return table((what, "type", "meaning"), rows)


def exclusions_page() -> str:
    """Return the page of exclusions in a study."""
    names = ("task", "model", "strategy", "mechanism", "frozen", "layers", "widths", "entries")
    words = {name: f"‹{name}›" for name in names}
    rows = [[part.title, exclusion.other, exclusion.sentence(words)] for part in PARTS for exclusion in part.exclusions]
    intro = (
        "`flfed study check` refuses a study with two of these. A word in ‹ › comes from the study. Strategies and "
        "mechanisms have further checks; [Methods](../methods.md) has the combinations of each strategy."
    )
    return page("Exclusions", intro, table(("part of a study", "cannot be combined with", "refusal"), rows))


PAGES: Mapping[str, tuple[Callable[[], str], str]] = {
    "study": (study_page, "The study file: every key, with each model, strategy, mechanism and codec"),
    "exclusions": (exclusions_page, "Exclusions: parts of a study that cannot be combined"),
    "policy": (policy_page, "`policy.toml`: permissions of a site"),
    "schema": (schema_page, "`schema.toml`: meaning of a dataset's columns"),
    "source": (source_page, "`source.toml`: licence, citation and files of a dataset"),
    "site": (site_page, "The site package: source, mapping, holdout"),
    "commands": (commands_page, "Every command with its arguments and options"),
    "python": (python_page, "The public names of `flfed`"),
}
"""Name of each page, its function, and its subject."""


def index_page() -> str:
    """Return the list of the pages."""
    intro = (
        "These pages are made from the code and complete: any other key, option or name does not exist. In tables of "
        "keys, the default `–` means that the key is left out."
    )
    lines = "\n".join(f"- [{about}]({name}.md)" for name, (_, about) in PAGES.items())
    return page("Reference", intro, lines, "Between sites and coordinator: [the messages](../messages.md).")


def pages() -> dict[Path, str]:
    """Return every page by its path."""
    made = {FOLDER / "index.md": index_page()}
    made |= {FOLDER / f"{name}.md": make() for name, (make, _) in PAGES.items()}
    return made | {FOLDER / "python" / f"{name}.md": name_page(name) for name in flfed.__all__}


def stale() -> list[str]:
    """Return the pages that differ from the code."""
    made = pages()
    found = [path for path, text in made.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    return sorted(path.name for path in {*found, *(set(FOLDER.rglob("*.md")) - set(made))})


def main() -> None:
    """Write the pages anew."""
    (FOLDER / "python").mkdir(parents=True, exist_ok=True)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
