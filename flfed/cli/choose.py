"""`flfed choose`: six questions, and the study that fits the answers."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import typer

from flfed.cli import arguments, output
from flfed.errors import FlfedError, UsageError
from flfed.words import render, usage_error

if TYPE_CHECKING:
    from flfed.study.choice import Answers, Choice, DatasetFacts, Outcome


def choose_study(
    file: Path | None = typer.Option(None, "--answers", help="TOML file with the answers, in place of the questions."),
    dataset: str = typer.Option(
        "",
        help="Dataset; default: your own if one fits, else a public table.",
        autocompletion=arguments.complete_datasets,
    ),
    target: Path | None = typer.Option(None, "--output", metavar="FILE", help="File of the study; default: print it."),
    as_json: bool = output.JSON,
) -> None:
    """Choose a study by six questions, with the reason for each setting.

    Each reason names the page with the figures that it rests on. If no study fits the answers, a sentence states why,
    and the exit code is 1. No table is read.
    """
    from flfed.rows.data import datasets

    named = _describe_dataset(dataset) if dataset else None
    answers = _read_answers(file, named) if file else _request_answers(_default_answers(named), named)
    facts, choice = _choose(answers, named)
    while file is None and choice.text is None:
        _say(render("choose.dialogue.again", reason=choice.reason))
        answers = _request_answers(answers, named)
        facts, choice = _choose(answers, named)
    if file is None and facts.is_stand_in:
        _say(render("choose.dialogue.stand-in", dataset=facts.name))
    written = _write(choice, target)
    if choice.text is not None and datasets.load(facts.name).absent():
        _say(render("choose.dialogue.get", dataset=facts.name))
    if as_json:
        shown = {"study": choice.text, "reason": choice.reason, "reasons": choice.reasons, "file": written}
        output.print_json({"answers": vars(answers), "dataset": facts.name, **shown})
    elif written is not None:
        output.say(render("choose.dialogue.written", file=written))
    elif choice.text is not None:
        typer.echo(choice.text.rstrip())
    if choice.text is None:
        raise FlfedError(choice.reason)


def _write(choice: Choice, target: Path | None) -> str | None:
    """Write the study where there is one and a file for it, and return the file."""
    from flfed.rows.proposals.texts import write_new

    if choice.text is None or target is None:
        return None
    return str(write_new(target.parent, {target.name: choice.text})[0])


def _choose(answers: Answers, named: DatasetFacts | None) -> tuple[DatasetFacts, Choice]:
    """Return the dataset of a choice and the choice, or why `flfed study check` refuses it.

    A column of one's own may not be confirmed yet.
    """
    from flfed.federation.server.preflight import check
    from flfed.study.choice import Choice, choose_study
    from flfed.study.study import Study

    facts = named or _find_dataset(answers.outcome)
    choice = choose_study(answers, facts)
    if choice.text is None:
        return facts, choice
    try:
        check(Study.parse(choice.text))
    except UsageError as error:
        return facts, Choice(reason=str(error))
    return facts, choice


def _describe_dataset(name: str) -> DatasetFacts:
    from flfed.rows.data import datasets, site_discovery
    from flfed.study.choice import DatasetFacts

    outcome = datasets.load(name).schema.task
    sites = site_discovery.of_dataset(name)
    if not all(site.has_outcome for site in sites):
        raise usage_error("choose.usage.parties", dataset=name)
    return DatasetFacts(name=name, outcome=outcome, sites=len(sites))


def _find_dataset(outcome: Outcome) -> DatasetFacts:
    """Return the only dataset of one's own with such an outcome, else a public table."""
    from flfed.packages import frames_folder, own_root, roots
    from flfed.rows.data import datasets
    from flfed.study.choice import STAND_INS, DatasetFacts

    names = set()
    for root in roots():
        if root not in (own_root(), frames_folder().resolve()):
            names |= {path.parent.name for path in root.glob("datasets/*/schema.toml")}
    fitting = sorted(name for name in names if datasets.load(name).schema.task == outcome)
    if len(fitting) > 1:
        raise usage_error("choose.usage.datasets", names=", ".join(fitting))
    if fitting:
        return _describe_dataset(fitting[0])
    return DatasetFacts(name=STAND_INS[outcome], outcome=outcome, is_stand_in=True)


def _default_answers(facts: DatasetFacts | None) -> Answers:
    """Return the answers that a dataset gives by itself, and the usual ones."""
    from flfed.study.choice import Answers

    if facts is None:
        return Answers()
    sites = facts.sites if facts.sites > 1 else Answers.sites
    return Answers(outcome=facts.outcome, sites=sites)


def _read_answers(path: Path, facts: DatasetFacts | None) -> Answers:
    """Return the answers of a file; those that it leaves out are the usual ones."""
    from flfed.parsers import parse_toml, read_text
    from flfed.study.choice import Answers
    from flfed.study.settings import read_settings

    settings = read_settings(Answers, parse_toml(read_text(path), str(path)), str(path))
    answers = Answers(**vars(_default_answers(facts)) | settings)
    if facts is not None and answers.outcome != facts.outcome:
        raise usage_error("choose.usage.task", outcome=answers.outcome, dataset=facts.name, task=facts.outcome)
    return answers


def _request_answers(defaults: Answers, facts: DatasetFacts | None) -> Answers:
    """Ask a person at a terminal; the outcome of a dataset that is named needs no question."""
    from flfed.study.choice import LEAST, QUESTIONS, Answers, list_choices

    if not sys.stdin.isatty():
        raise usage_error("choose.usage.terminal", keys=", ".join(QUESTIONS))
    answers: dict[str, Any] = dict(vars(defaults))
    questions = [name for name in QUESTIONS if facts is None or name != "outcome"]
    for number, name in enumerate(questions, 1):
        question = render(f"choose.questions.{name}")
        why = render(f"choose.why.{name}")
        _say(render("choose.dialogue.question", number=number, count=len(questions), question=question, why=why))
        # Against a coordinator that lies noise is the safer answer.
        if name == "noise" and answers["noise"] == "none" and not Answers(**answers).trusts_coordinator:
            answers["noise"] = "updates"
        choices = list_choices()[name]
        for choice in choices:
            meaning = render(f"choose.options.{name}-{choice}")
            _say(f"   {render('choose.dialogue.option', name=choice, meaning=meaning)}")
        kind = click.Choice(choices) if choices else click.IntRange(min=LEAST[name])
        # Asked again until the answer is a possible one.
        answers[name] = typer.prompt(f"  {name}", default=answers[name], type=kind, show_choices=False, err=True)
    return Answers(**answers)


def _say(line: str) -> None:
    """Print a line of the dialogue; standard output has the study alone."""
    with redirect_stdout(sys.stderr):
        output.say(line)
