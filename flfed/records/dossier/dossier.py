"""Folder of a dossier: report, record, answer sheets, facts of people, and the metadata of an RO-Crate."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flfed.errors import UsageError, require_extra
from flfed.paths import private_folder, write_private
from flfed.records.document.document import document
from flfed.records.dossier.answers import (
    Counts,
    Facts,
    answer_sheet,
    as_object,
    count_answers,
    read_sheets,
    write_template,
)
from flfed.records.dossier.crate import describe_crate
from flfed.records.dossier.pages import cover_page, sheet_page
from flfed.records.dossier.record import Member, RunRecord
from flfed.records.store.reader import RunReader
from flfed.records.store.tables import plain
from flfed.words import render, usage_error

FACTS = "facts.toml"
METADATA = "ro-crate-metadata.json"
ADVICE = "choose another folder with --dossier"


@dataclass(frozen=True)
class Dossier:
    """Written dossier.

    Attributes
    ----------
    folder : Path
    run : str
    counts : mapping of sheet to Counts
    left_out : sequence of str
        Sentences on sheets that are not there.
    facts : Path or None
        The file of facts that was absent and is now written.
    """

    folder: Path
    run: str
    counts: Mapping[str, Counts]
    left_out: Sequence[str]
    facts: Path | None

    def as_object(self) -> dict[str, object]:
        """Return it for `--json`."""
        facts = str(self.facts) if self.facts else None
        sheets = {name: counts._asdict() for name, counts in self.counts.items()}
        return {"folder": str(self.folder), "run": self.run, "sheets": sheets, "facts-written": facts}


def write_dossier(
    folder: Path, name: str, *, facts_file: Path | None = None, store: str | None = None, members: Sequence[Member] = ()
) -> Dossier:
    """Write the dossier of a run into a new or empty folder.

    Parameters
    ----------
    folder : Path
    name : str
        Id of a run or a series, or "latest".
    facts_file : Path, optional
        Texts that only people can write; written with empty ones where it is absent.
    store : str, optional
        Database URL.
    members : sequence of Member
        The coordinator's list of institutions.

    Raises
    ------
    UsageError
        If there is no such run, the folder has something in it or cannot be written, the file of facts is wrong, or
        the extra `flfed[dossier]` is not installed. Nothing is written.
    """
    require_extra("rocrate", render("dossier.folder.feature"), "dossier")
    _check_free(folder)
    every = read_sheets()
    facts = Facts.read(facts_file, every) if facts_file else Facts()
    with RunReader.open(store) as reader:
        record = RunRecord.read(reader, name, members)
    # "latest" may be another run by now.
    report = document(record.run.run, store=store)
    trains = record.content.shown.trains
    chosen = [sheet.for_run(trains=trains, validates=record.validates) for sheet in every]
    sheets = [sheet for sheet in chosen if sheet is not None]
    answers = {sheet.name: answer_sheet(sheet, record, facts) for sheet in sheets}
    left_out = [render("dossier.folder.unread")]
    left_out += [render("dossier.folder.untrained", title=sheet.title) for sheet in every if sheet.name not in answers]
    files = {
        "index.html": cover_page(record, sheets, answers, facts, left_out),
        "report.html": report,
        **{f"{sheet.name}.html": sheet_page(sheet, answers[sheet.name], record) for sheet in sheets},
        "answers.json": _json({sheet.name: as_object(sheet, answers[sheet.name]) for sheet in sheets}),
        "record.json": _json(record.as_object()),
        "study.toml": record.content.shown.study_text,
        FACTS: write_template(every, facts),
    }
    files[METADATA] = _json(describe_crate(record, facts, list(files)))
    _write(folder, files)
    absent = _write_facts(facts_file, files[FACTS])
    counts = {name: count_answers(of) for name, of in answers.items()}
    return Dossier(folder, record.run.run, counts, left_out, absent)


def _write_facts(path: Path | None, text: str) -> Path | None:
    """Write the file of facts where it is absent, and return its path then."""
    if path is None or path.exists():
        return None
    write_private(path, text, advice=render("dossier.folder.facts"))
    return path


def _json(content: object) -> str:
    return json.dumps(plain(content), indent=1, ensure_ascii=False) + "\n"


def _check_free(folder: Path) -> None:
    """Refuse a folder that has something in it, and anything else of its name."""
    try:
        if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
            raise usage_error("dossier.folder.taken", folder=folder)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be read ({error.strerror}): {ADVICE}") from None


def _write(folder: Path, files: Mapping[str, str]) -> None:
    try:
        private_folder(folder)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written ({error.strerror}): {ADVICE}") from None
    for name, text in files.items():
        write_private(folder / name, text, advice=ADVICE)
