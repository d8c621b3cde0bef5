"""`flfed study list`, `show`, `new` and `check`: a study before it is run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from flfed.cli import arguments, output
from flfed.cli.arguments import SET, STUDY, TO, study_of
from flfed.errors import UsageError
from flfed.records.statistics.verdict import format_as_written, interval, number
from flfed.study.tables import HOLDOUT_SHARE
from flfed.words import counted, render, usage_error

if TYPE_CHECKING:
    from flfed.study.study import Study

app = typer.Typer(no_args_is_help=True, help="List, check and run studies.")


@app.command("list")
@output.tables
def list_studies(
    whole: bool = typer.Option(False, "--all", help="List research variants of strategies, too."),
    as_json: bool = output.JSON,
) -> None:
    """List the shipped studies, and all names for a study: strategies, models, metrics and others.

    The strategies that `flfed choose` proposes come first; all others are research variants.
    """
    from flfed import registry
    from flfed.study.study import Study, listed_names, names

    studies = [Study.load(name) for name in names()]
    kinds = {"strategies": "strategy"}
    kinds |= {f"{kind}s": kind for kind in ("model", "metric", "mechanism", "codec", "attack", "statistic")}
    # A program gets only the names, people also the packages.
    if as_json:
        named = [{"study": s.name, "dataset": s.dataset.name, "purpose": s.purpose} for s in studies]
        output.print_json({"studies": named} | {word: listed_names(kind) for word, kind in kinds.items()})
    else:
        rows = [[s.name, s.dataset.name, s.purpose] for s in studies]
        output.as_table(["study", "dataset", "purpose"], rows, spare=("dataset",), cut="purpose")
    for kind in kinds.values():
        if not as_json:
            _print_names(kind, whole)
        for clash in registry.clashes(kind):
            typer.echo(clash, err=True)


def _print_names(kind: str, whole: bool) -> None:
    """Print the names of a kind with their descriptions: those for every day first, research variants last."""
    from flfed import registry
    from flfed.study.choice import EVERYDAY
    from flfed.study.study import describe_name, listed_names

    everyday = EVERYDAY.get(kind, ())
    packages = registry.others(kind)
    rest = [name for name in listed_names(kind) if name not in everyday]
    research = [name for name in rest if everyday and name not in packages]
    shown = [*everyday, *(name for name in rest if name not in research)]
    if whole:
        shown += research
    rows = []
    for name in shown:
        package = f"{name} ({packages[name]})" if name in packages else name
        rows.append([package, describe_name(kind, name)])
    typer.echo()
    output.as_table([kind, "description"], rows, cut="description")
    if len(shown) < len(everyday) + len(rest):
        output.say(render("commands.output.more", count=len(research), what="research variants: --all"))


@app.command("show", epilog="preterm-birth")
def show_study(name: str = STUDY, changes: list[str] = SET) -> None:
    """Print the text of a study, as it is sent to the sites.

    The output is the study, so > FILE writes a study with the same SHA-256; that and other remarks go to the terminal.
    """
    study = study_of(name, changes)
    typer.echo(study.text, nl=False)
    for line in (f"SHA-256 {study.sha256()}", *analysis_in_words(study)):
        typer.echo(f"# {line}", err=True)


@app.command("new", epilog="--dataset heart-flamby --estimate glm --of age,sex,exang --name my-study")
def new_study(
    dataset: str = typer.Option(..., help="Dataset.", autocompletion=arguments.complete_datasets),
    model: str = typer.Option("", help="logistic, linear, mlp or boosted-trees; default: the first that fits."),
    private: bool = typer.Option(False, "--private/--not-private", help="Differential privacy for each row."),
    covers: str = typer.Option("updates", help="Scope of epsilon: updates, or study for all releases of a site."),
    summary: bool = typer.Option(False, "--summary", help="Counts and means under one epsilon, without a model."),
    estimate: str = typer.Option(
        "", help="Exact sums without a model: glm, cox, mantel-haenszel, odds-ratio or survival."
    ),
    of: str = typer.Option("", metavar="COLUMN,...", help="Columns of a glm or cox; products such as 'age * sex'."),
    by: str = typer.Option("", metavar="COLUMN", help="Groups that an odds ratio or survival compares."),
    time: str = typer.Option("", metavar="COLUMN", help="Time until the event, of cox or survival."),
    event: str = typer.Option("", metavar="COLUMN", help="Flag of the event; default: the target."),
    outcome: str = typer.Option("", metavar="COLUMN", help="Outcome of a glm; default: the target."),
    validate: Path | None = typer.Option(
        None,
        metavar="MODEL",
        help="Train nothing and validate this model: a folder, a .csv of coefficients, or a .json.",
    ),
    name: str = typer.Option("", help="Name; default: the dataset's with -study, -table or the statistic."),
    purpose: str = typer.Option("", help="Purpose, which is part of each approval."),
    to: Path = TO,
) -> None:
    """Write a new study, with a comment for each choice; `flfed choose` chooses one by questions."""
    if validate is not None:
        _new_validation(validate, dataset, name or f"{dataset}-validation", purpose, to)
        return
    from flfed.federation.server.preflight import check
    from flfed.rows.data import datasets, site_discovery
    from flfed.rows.proposals.texts import write_new
    from flfed.rows.statistics.of_study import choose_estimate, visits_in_words
    from flfed.study.study import Study
    from flfed.study.template import MODELS, StudyTemplate

    schema = datasets.load(dataset).schema
    sites = site_discovery.of_dataset(dataset)
    opened = all(site.policy.is_open for site in sites)
    columns = {"of": of, "by": by, "time": time, "event": event, "outcome": outcome}
    choices: dict[str, Any] = {"model": model, "private": private, "sums": True}
    suffix = "study"
    if estimate or any(columns.values()):
        others = {"model": model, "private": private, "covers": covers != "updates", "summary": summary}
        choices = {"estimate": choose_estimate(estimate, schema, columns, others), "sums": not opened}
        if not sites:
            choices["settings"] = {"dataset.partition": {"by": "iid", "sites": 3}}
            choices["reasons"] = {"dataset.partition": render("study.estimate.cut")}
        suffix = estimate
    elif summary:
        suffix = "table"
        choices["columns"] = _list_counted(datasets.load(dataset))
    else:
        choices["model"] = model or MODELS[schema.task]
        if not all(site.has_outcome for site in sites):
            choices |= {"sites": tuple(sorted(site.name for site in sites)), "has_parties": True}
    named = name or f"{dataset}-{suffix}"
    template = StudyTemplate(
        name=named, dataset=dataset, purpose=purpose, task=schema.task, covers=covers, **choices,
    )  # fmt: skip
    # A study that cannot run is refused before it is written.
    text = template.text()
    check(Study.parse(text))
    path = write_new(to, {f"{named}.toml": text})[0]
    typer.echo(render("commands.study.written", file=path))
    if estimate and not opened:
        output.say(render("study.estimate.sums"))
    output.say_all(visits_in_words(Study.parse(text), schema)[1:])


def _new_validation(model: Path, dataset: str, name: str, purpose: str, to: Path) -> None:
    """Write a study that validates a model, and the model's folder where it was another file."""
    from flfed.export.brought.validation_study import make_validation
    from flfed.rows.proposals.texts import write_new

    study = make_validation(model, dataset, to / f"{name}-model", name=name, purpose=purpose)
    path = write_new(to, {f"{name}.toml": study.text})[0]
    typer.echo(render("commands.study.written", file=path))
    if study.folder != model.resolve():
        output.say(render("commands.study.brought", folder=study.folder))
    output.say(render("commands.study.validates", sha256=study.start_sha256))


def _list_counted(dataset: Any) -> list[str]:
    """Return the columns that a new study counts, which somebody has confirmed, and print how many others there are."""
    from flfed.rows.statistics.noised_analysis import COUNTED

    schema = dataset.schema
    confirmed = [name for name in schema.columns if name not in schema.unconfirmed]
    columns = [name for name in confirmed if schema.columns[name].kind in COUNTED]
    others = counted(len(schema.unconfirmed), "column")
    note = render("commands.study.unconfirmed", columns=others, file=dataset.folder / "schema.toml")
    if not columns:
        raise UsageError(note)
    if schema.unconfirmed:
        output.say(note)
    return columns


@app.command("check", epilog="my-study.toml")
@output.with_json
def check_study(name: str = STUDY, changes: list[str] = SET, whole: bool = output.ALL) -> output.Shown:
    """Check a study and all that it names, and print its privacy guarantee.

    No site's table is read. Only a table that the study itself cuts into sites is, for their names and numbers of rows.
    """
    study = study_of(name, changes)
    from flfed.deployment.operator.study_description import bytes_in_words, bytes_of_runs
    from flfed.federation.engines.engine import absent_files, list_sites
    from flfed.federation.recording.privacy_recorder import promised
    from flfed.federation.recording.source_model import source_in_words
    from flfed.federation.server.preflight import check
    from flfed.records.reports.privacy import without_model
    from flfed.rows.data import datasets
    from flfed.rows.statistics.of_study import visits_in_words

    facts = check(study)
    study_sites = list_sites(study)
    sites = [site.name for site in study_sites]
    parties = study.is_vertical
    kind = without_model(is_trained=not study.is_statistic, one_answer=study.analysis is not None, parties=parties)
    privacy = promised(study, len(sites)) | kind
    schema = datasets.load(study.dataset.name).schema
    sizes = bytes_of_runs(study, schema, study_sites)
    began = source_in_words(study)
    exchanges = study.exchanges_of_rounds
    shown = {"study": study.name, "sha256": study.sha256(), **facts, "sites": sites, "privacy": privacy}
    if exchanges:
        shown["exchanges"] = exchanges
    shown["bytes"] = sizes
    if began:
        shown["warm-start"] = began[1]
    yield shown
    output.say_all(can_be_run(study, facts))
    if absent := absent_files(study.dataset.name, study_sites):
        output.say(render("run.sites.files", dataset=study.dataset.name, files=", ".join(absent)))
    if began:
        output.say(began[0])
    output.say_sites(sites, {site: bytes_in_words(size) for site, size in sizes.items()}, whole=whole)
    if exchanges:
        output.say(trees_in_words(study))
    output.say_all([*visits_in_words(study, schema), *sums_in_words(study)])
    output.promise(privacy)


@app.command("power", epilog="heart-disease --auc 0.88 --repeats 10")
@output.tables
def study_power(
    name: str = STUDY,
    changes: list[str] = SET,
    auc: float = typer.Option(0.75, help="AUC of the shared model."),
    rows: int | None = typer.Option(None, min=1, help="Rows of a site of your own; default: the study's own tables."),
    events: int | None = typer.Option(None, min=0, help="Its rows with the outcome."),
    repeats: int = typer.Option(
        1, min=1, help="Random splits of each site's rows, as of `flfed study run`; 1 where sites keep their test rows."
    ),
    whole: bool = output.ALL,
) -> output.Shown:
    """Show the least gain that the test rows of each site can show, before anybody trains."""
    from flfed.experiments import study_power as experiment

    study = study_of(name, changes)
    own = None
    if rows is not None and events is not None:
        own = (rows, events)
    elif rows is not None or events is not None:
        raise usage_error("experiments.power.both")
    result = experiment.study_power(study, auc=auc, repeats=repeats, own=own)
    yield result.as_object()
    facts = {"share": 100 * HOLDOUT_SHARE, "repeats": counted(result.design.repeats, "split")}
    least = format_as_written(result.design.worthwhile)
    output.say(render("experiments.power.assumed", auc=number(auc), least=least, **facts))
    headers = ["site", "rows", "events" if own else "events, estimated", "least gain shown"]
    cells = []
    for site, of in result.sites.items():
        shown = "none"
        if of.least is not None:
            shown = f"{number(of.least.value, 3)} ({interval(of.least.low, of.least.high, 3)})"
        cells.append([site, str(of.rows), str(of.events), shown])
    output.as_table(headers, cells, study.name, more="sites: --all", whole=whole)


def can_be_run(study: Study, facts: Mapping[str, Any]) -> list[str]:
    """Return that a study can be run, and its analysis; `facts` are those of its check."""
    kind = f"primary metric {facts['primary']}"
    if study.analysis is not None:
        kind = "analysis without a model"
    elif study.is_statistic:
        kind = f"statistic {study.statistic.name}"
    noise = [] if study.analysis is None else [noise_in_words(study)]
    valid = render("check.study.valid", study=study.name, task=facts["task"], kind=kind)
    return [valid, *analysis_in_words(study), *noise]


def trees_in_words(study: Study) -> str:
    """Return how many exchanges a run of trees takes, at most."""
    facts = {"exchanges": study.exchanges_of_rounds, "rounds": study.most_rounds, "levels": study.exchanges_of_round}
    return render("check.study.trees", **facts)


def analysis_in_words(study: Study) -> list[str]:
    """Return the columns and the guarantee of an analysis, from the study alone; no line for another study."""
    from flfed.records.reports.privacy import epsilon_in_words, power_of_ten
    from flfed.updates.mechanism import mechanism_of

    analysis = study.analysis
    mechanism = mechanism_of(study)
    if analysis is None or mechanism is None:
        return []
    columns = f"every column of {study.dataset.name}"
    if analysis.columns:
        columns = ", ".join(name for name in analysis.columns if name != analysis.groups) or "no column"
    sentences = [render("check.analysis.columns", columns=columns)]
    if analysis.groups:
        sentences.append(render("check.analysis.groups", column=analysis.groups))
    if analysis.cross:
        pairs = ", ".join(" by ".join(pair) for pair in analysis.cross)
        sentences.append(render("check.analysis.cross", pairs=pairs))
    lines = [" ".join(sentences)]
    promise = mechanism.promise(study.plan, study.rounds)
    if promise is not None:
        bound = {"epsilon": epsilon_in_words(promise.epsilon), "delta": power_of_ten(promise.delta)}
        lines.append(render("check.analysis.guarantee", unit=promise.unit, **bound))
    return lines


def noise_in_words(study: Study) -> str:
    """Return the noise of each count of an analysis, at a site or in the sum over all sites."""
    from flfed.records.statistics.intervals import NORMAL_95
    from flfed.rows.data import datasets
    from flfed.rows.statistics.noised_analysis import NoisedAnalysis
    from flfed.updates.mechanism import mechanism_of

    mechanism = mechanism_of(study)
    promise = None if mechanism is None else mechanism.promise(study.plan, study.rounds)
    if promise is None or study.analysis is None:
        return ""
    query = NoisedAnalysis.of_study(study, promise.noise).query(datasets.load(study.dataset.name).schema)
    count = "count of a group" if study.analysis.groups else "count"
    deviation = number(query.deviation)
    if study.aggregation.sums_updates:
        return render("check.analysis.summed", count=count, deviation=deviation)
    reach = number(NORMAL_95 * query.deviation)
    return render("check.analysis.noise", count=count, deviation=deviation, reach=reach)


def sums_in_words(study: Study) -> list[str]:
    """Return the secure aggregation of a study, and the figures by round that it suppresses."""
    if not study.aggregation.sums_updates:
        return []
    messages = "updates" if study.analysis is None else "replies"
    sentence = render(f"check.sums.{study.secure_aggregation}", messages=messages)
    if study.is_statistic or study.covers_model:
        return [sentence]
    rounds = [render("check.study.rounds")]
    if study.adjusts_intercept():
        rounds.append(render("check.study.offsets"))
    return [sentence, " ".join([*rounds, render("check.study.losses")])]
