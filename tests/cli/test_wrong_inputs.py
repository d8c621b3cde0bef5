"""Nonsense at every door: exit code 2 and one sentence that says what, where and what to do, never a cell."""

import datetime
import http.server
import os
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

Wards = Callable[..., None]
CELL = "Jane Roe"
"""Stands in every table of these tests, and in nothing that is said of them."""

SITE = """
from flfed import Csv, Holdout, Site
site = Site(name="{name}", dataset="small", source=Csv("rows.csv"), holdout=Holdout(salt="{name}"))
"""


@pytest.fixture
def refused(flfed) -> Callable[..., str]:
    """Call a command that must be refused; return its one sentence."""

    def call(*words: str) -> str:
        code, out, err = flfed(*words)
        assert code == 2, (code, out, err)
        assert err.startswith("flfed: ") and err.endswith("\n") and err.count("\n") == 1, err
        assert "Traceback" not in out + err
        assert CELL not in out + err and "Jane" not in out + err
        assert len(err.split()) >= 6  # what, where and what to do take some words
        return err

    return call


@pytest.fixture
def study(small_study: str, small_sites, tmp_path: Path) -> Callable[..., str]:
    """A function that writes the study on "small", changed, and returns its file."""

    def write(old: str = "", new: str = "", *, encoding: str = "utf-8") -> str:
        assert old in small_study
        file = tmp_path / "study.toml"
        file.write_bytes(
            small_study.replace(old, new, 1).encode(encoding) if old else (small_study + new).encode(encoding)
        )
        return str(file)

    return write


@pytest.fixture
def wards(small_sites) -> Wards:
    """A function that writes two institutions with CSV tables on the disk, their tables or files spoiled."""

    def write(
        table: Callable[[pd.DataFrame], pd.DataFrame] | None = None, file: Callable[[Path], object] | None = None
    ) -> None:
        for name, site in zip(("ward-a", "ward-b"), small_sites(2, rows=60), strict=True):
            folder = Path(os.environ["FLFED_PATH"]) / "sites" / name.replace("-", "_")
            folder.mkdir(parents=True)
            (folder / "__init__.py").write_text(SITE.format(name=name))
            (folder / "policy.toml").write_text('format = 1\ndisclosure = "open"\n')
            rows = site.source.table.assign(person=CELL + site.source.table["person"])
            (rows if table is None else table(rows)).to_csv(folder / "rows.csv", index=False)
            if file is not None:
                file(folder / "rows.csv")

    return write


def cell(column: str, value: object, count: int = 12) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Return what puts `value` into the first cells of a column."""

    def change(table: pd.DataFrame) -> pd.DataFrame:
        changed = table[column].astype(object)
        changed.iloc[:count] = value
        return table.assign(**{column: changed})

    return change


TABLES = {
    "a column is missing": (lambda t: t.drop(columns="x1"), None, "column 'x1' is not in the table"),
    "a value out of range": (cell("x1", 4711), None, "'x1' is outside the schema's range 0 to 100 mm in 12 rows"),
    "text in a number": (cell("x2", CELL, 3), None, "column 'x2' is not a number in fewer than 5 rows"),
    "an unknown category": (cell("colour", CELL), None, "'colour' has a value that the schema does not allow in 12"),
    "no flag": (cell("flag", 7), None, "column 'flag' is not a flag (0 or 1, yes or no) in 12 rows"),
    "an outcome is missing": (cell("y", None), None, "column 'y' has no value"),
    "the target is missing": (lambda t: t.drop(columns="y"), None, "column 'y' is not in the table"),
    "an unknown class": (cell("y", "perhaps"), None, "column 'y' has a value that the schema does not allow"),
    "an empty table": (lambda t: t[:0], None, "has no rows: the table is empty"),
    "a duplicate column": (
        None, lambda f: f.write_text(f.read_text().replace("x2,", "x1,", 1)),
        "column 'x1' stands in the table more than once",
    ),
}  # fmt: skip
FILES = {
    "the wrong delimiter": (lambda f: f.write_text(f.read_text().replace(",", ";")), "separated by ';'"),
    "no file": (Path.unlink, "the table 'rows.csv' is not in"),
    "an empty file": (lambda f: f.write_bytes(b""), "cannot be read as CSV with separator ',' and encoding"),
    "the wrong encoding": (lambda f: f.write_bytes(f.read_text().replace("red", "röd").encode("latin-1")), "encoding"),
    "a longer line": (lambda f: f.write_text(f.read_text() + "1,2,3,4,5,6,7,8,9\n"), "cannot be read as CSV"),
    "another kind of file": (lambda f: f.write_bytes(bytes(range(256)) * 9), "cannot be read as CSV"),
}  # fmt: skip


@pytest.mark.studies
@pytest.mark.parametrize(("table", "file", "says"), TABLES.values(), ids=TABLES)
def test_a_table_that_breaks_the_schema_is_refused_by_the_check_and_by_the_run(
    refused, wards, study, table, file, says
):
    wards(table, file)
    checked = refused("site", "check", "ward-a")
    assert says in checked
    assert "site 'ward-a' does not fit dataset 'small'" in checked
    assert "flfed site map ward-a" in checked and "flfed site check ward-a --local-rows FILE" in checked
    assert "--local-rows" in checked
    ran = refused("study", "run", study())
    assert says.replace("fewer than 5", "fewer than 10") in ran
    assert "ward-a" in ran and "ward-b" in ran
    assert "at least 2 are needed" in ran and "flfed site check" in ran


@pytest.mark.parametrize(("file", "says"), FILES.values(), ids=FILES)
def test_a_file_that_cannot_be_read_is_refused_by_the_check_and_by_the_run(refused, wards, study, file, says):
    wards(file=file)
    assert says in refused("site", "check", "ward-a")
    ran = refused("study", "run", study())
    # Its path stays at the site: the run says where to look.
    assert "flfed site check ward-a" in ran and "rows.csv" not in ran


def test_one_class_everywhere_is_refused_and_the_store_has_the_reason(refused, flfed, wards, study):
    wards(lambda t: t.assign(y="no"))
    said = refused("study", "run", study())
    assert "column 'y' has one class only in the training rows of all sites" in said
    assert '"failed"' in flfed("run", "list", "--json")[1]


def test_one_class_at_one_site_only_is_no_mistake(flfed, wards, study):
    wards(lambda t: t.assign(y="no") if len(t) == 60 else t)  # ward-b has 70 rows
    code, _, err = flfed("study", "run", study())
    assert (code, err) == (0, "")


def test_a_sound_table_passes_so_that_the_refusals_above_mean_something(flfed, wards, study):
    wards()
    assert flfed("site", "check", "ward-a")[0] == 0
    code, out, err = flfed("study", "run", study())
    assert (code, err) == (0, "")
    assert "ward-a" in out


NAMED = '[dataset]\nname = "small"'
STUDIES = {
    "broken TOML": ("seed = 7", "seed = [7", "not valid TOML"),
    "an unknown table": ("", "[plann]\nlr = 1\n", "did you mean 'plan'"),
    "an unknown key": ("lr = 0.1", "lrr = 0.1", "key 'lrr' is not known; did you mean 'lr'"),
    "an unknown strategy": ('name = "fedavg"', 'name = "fedvag"', "did you mean 'fedavg'"),
    "an unknown model": ('name = "logistic"', 'name = "logistik"', "did you mean 'logistic'"),
    "a wrong type": ("lr = 0.1", 'lr = "fast"', "lr='fast' must be a number"),
    "a number for a name": ('name = "fedavg"', "name = 1", "[strategy]: name is missing"),
    "zero rounds": ("rounds = 5", "rounds = 0", "rounds=0 must be a whole number >= 1"),
    "a cohort larger than the sites": ("rounds = 5", "rounds = 5\nfraction = 1.5", "fraction=1.5 must be in (0, 1]"),
    "a cohort of nobody": ("rounds = 5", "rounds = 5\nfraction = 0", "fraction=0.0 must be in (0, 1]"),
    "an unknown dataset": (NAMED, NAMED.replace("small", "smal"), "did you mean 'small'"),
    "an unknown site": (NAMED, NAMED + '\nsites = ["nobody"]', "site 'nobody' is not known"),
    "an unknown feature": (NAMED, NAMED + '\nfeatures = ["x9"]', "x9"),
    "an unknown metric": ("resamples = 200", 'resamples = 200\nprimary = "auc"', "auc"),
    "a negative learning rate": ("lr = 0.1", "lr = -1", "lr=-1.0 must be > 0"),
    "another format": ("format = 1", "format = 2", "must have format = 1"),
    "no purpose": ('purpose = "Test"', 'purpose = ""', "purpose must be a text"),
    "an expired study": ("seed = 7", "seed = 7\nexpires = 2020-01-31", "expired on 2020-01-31"),
    "a model for another task": ('name = "logistic"', 'name = "linear"', "is for regression"),
    "a figure without source": (
        "", '[expected]\n"global.roc_auc_score" = { minimum = 0.5 }\n', "source must name the origin of the figure",
    ),
    "a sweep over nothing": ("", "[sweep]\nlr = []\n", "must be a list of values to try"),
}  # fmt: skip


@pytest.mark.studies
@pytest.mark.parametrize(("old", "new", "says"), STUDIES.values(), ids=STUDIES)
def test_a_study_that_is_wrong_is_refused_by_every_command_that_takes_one(refused, wards, study, old, new, says):
    wards()
    file = study(old, new)
    for words in (
        ("check",),
        ("run",),
        ("verify",),
        ("sweep", "--grid", "plan.l2=0,1", "--set", "plan.validation=0.2"),
    ):
        assert says in refused("study", words[0], file, *words[1:])


@pytest.mark.parametrize(
    ("encoding", "says"), [("utf-8-sig", "byte-order mark"), ("utf-16", "UTF-8"), ("latin-1", "UTF-8")]
)
def test_a_study_in_another_encoding_is_refused(refused, study, encoding, says):
    file = study('purpose = "Test"', 'purpose = "Prüfung"', encoding=encoding)
    said = refused("study", "check", file)
    assert says in said and file in said


WORDS = {
    "study check no-such-study": "neither shipped nor a file",
    "study show /nowhere/study.toml": "neither shipped nor a file: check its folder and its name",
    "study run wine --set lr": "write it as KEY=VALUE",
    "study run wine --set plan.lr=fast": "lr='fast' must be a number",
    "study run wine --set lrr=1": "did you mean 'lr'",
    "study run wine --engine rai": "engine 'rai' is not known",
    "study run wine --repeats 0": "repeats=0 must be a whole number >= 1",
    "study run wine --repeats many": "'many' is not a whole number",
    "study run wine --site cleveland": "cuts its dataset into research sites itself",
    "study run preterm-birth --site kentucky-clinic --site kentucky-clinic": "'kentucky-clinic'",
    "study run preterm-birth --site nobody": "site 'nobody' is not known",
    "study run preterm-birth --site os.path": "must end with `site = Site(...)`",
    "study run heart-disease": "flfed data get heart-disease",
    "study verify wine --set expected.repeats=0": "repeats=0 must be >= 1",
    "study sweep wine": "has no [sweep]",
    "study sweep wine --grid lr=0.1,0.2": "set it, such as --set plan.validation=0.2",
    "study sweep wine --set validation=0.2 --grid lr": "write it as KEY=V1,V2",
    "study sweep wine --set validation=0.2 --grid lr=0.1,,0.2": "write it as KEY=V1,V2, without an empty value",
    "study sweep wine --set validation=0.2 --grid seed=1,2": "cannot be swept",
    "study resume 20200101-000000-beef": "is not in the store", "study frobnicate": "No such command",
    "study run": "Missing argument", "run show 20200101-000000-beef": "is not in the store",
    "run list --limit 0": "'--limit'", "site check nobody": "site 'nobody' is not known",
    "data get no-such": "dataset 'no-such' is not known", "data get heart-disease --from /nowhere": "no such folder",
    "data get heart-disease --from sites": "no file with its SHA-256",
    "app --port 99999": "99999 is not in the range",
    "app --port http": "'http' is not a whole number",
}  # fmt: skip


@pytest.mark.parametrize(("words", "says"), WORDS.items())
def test_words_that_make_no_sense_are_refused(refused, words, says):
    assert says in refused(*words.split())


@pytest.mark.servers
def test_the_real_program_says_one_sentence_too(tmp_path: Path):
    command = [str(Path(sys.executable).parent / "flfed"), "study", "run", "wine", "--set", "rounds=0"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "FLFED_HOME": str(tmp_path)})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "flfed: [strategy]: rounds=0 must be a whole number >= 1\n"


@pytest.mark.parametrize("words", ["run list", "run show latest", "study run diabetes --set rounds=1"])
@pytest.mark.parametrize(("store", "says"), [
    ("sqlite:////dev/null/runs.db", "set FLFED_STORE to a file where you may write"),
    ("postgresql+psycopg://ana:s3cret@127.0.0.1:9/flfed", "check that the server runs"),
    ("mysql://ana:s3cret@db/flfed", "cannot be 'mysql'"), ("no address at all", "must be a database URL"),
])  # fmt: skip
def test_a_store_that_cannot_be_reached_is_refused_without_its_password(refused, monkeypatch, words, store, says):
    monkeypatch.setenv("FLFED_STORE", store)
    if words.startswith("run") and store.startswith("sqlite"):
        return  # a file that is not there reads as an empty store
    said = refused(*words.split())
    assert says in said
    assert "s3cret" not in said


def test_a_store_that_is_another_kind_of_file_is_refused(refused, monkeypatch, tmp_path):
    (tmp_path / "runs.db").write_text("not a database at all, " * 99)
    monkeypatch.setenv("FLFED_STORE", f"sqlite:///{tmp_path / 'runs.db'}")
    for words in ("run list", "study run diabetes --set rounds=1"):
        assert "move the file away" in refused(*words.split())


def test_a_home_that_is_no_folder_is_refused_by_every_command_that_needs_one(refused, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FLFED_HOME", str(tmp_path / "file" / "home"))
    for words in (
        "run list",
        "study run diabetes",
        "study sweep diabetes --set validation=0.2 --grid lr=1",
        "data list",
    ):
        said = refused(*words.split())
        assert "FLFED_HOME" in said and str(tmp_path) in said


class Wrong(http.server.BaseHTTPRequestHandler):
    """Answers every request with a file that nobody asked for."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"not the file")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def https(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a real server on this machine, with a certificate that this process trusts."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    own = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    (tmp_path / "server.pem").write_bytes(made.public_bytes(pem) + own)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    with http.server.HTTPServer(("127.0.0.1", 0), Wrong) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"https://localhost:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_download_that_is_another_file_is_refused_and_not_kept(refused, small_sites, https, home):
    source = Path(os.environ["FLFED_PATH"]) / "datasets" / "small" / "source.toml"
    digest = "0" * 64
    lines = [f'[[files]]\nname = "rows.csv"\nsha256 = "{digest}"\nbytes = 12\nurl = "{https}/rows.csv"\n']
    source.write_text(source.read_text() + "\n".join(lines))
    said = refused("data", "get", "small")
    assert "rows.csv" in said and "SHA-256 differs" in said and "--from" in said
    assert list((home / "data" / "small").iterdir()) == []


def test_a_table_that_breaks_the_schema_gets_no_predictions(refused, flfed, wards, study, tmp_path):
    wards()
    assert flfed("study", "run", study())[0] == 0
    model = tmp_path / "model"
    assert flfed("run", "export", "latest", "--output", str(model))[0] == 0
    sound = Path(os.environ["FLFED_PATH"]) / "sites" / "ward_a" / "rows.csv"
    code, out, _ = flfed("predict", str(model), str(sound))
    assert code == 0 and len(out.splitlines()) == 61
    without = {"an outcome is missing", "the target is missing"}  # what is to be predicted need not be there
    for name, (table, file, says) in TABLES.items():
        if name in without:
            continue
        rows = pd.read_csv(sound)
        broken = tmp_path / "broken.csv"
        (rows if table is None else table(rows)).to_csv(broken, index=False)
        if file is not None:
            file(broken)
        said = refused("predict", str(model), str(broken))
        assert says.partition(" in ")[0].partition(":")[0] in said, name
    # Another separator or encoding is found: such a file is read.
    for name in ("an empty file", "a longer line", "another kind of file"):
        file, says = FILES[name]
        shutil.copy(sound, broken)
        file(broken)
        assert says in refused("predict", str(model), str(broken)), name
    assert "nowhere" in refused("predict", "/nowhere/model", str(sound))
    assert "nowhere.csv" in refused("predict", str(model), "/tmp/nowhere.csv")
    (model / "schema.toml").unlink(missing_ok=True)
    refused("predict", str(model), str(sound))


def test_cells_of_numbers_are_never_quoted(refused, wards, study):
    wards(cell("x1", 9876543.25))
    for words in (("site", "check", "ward-a"), ("study", "run", study())):
        assert "9876543" not in refused(*words)
