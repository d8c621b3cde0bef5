# make demo: run two studies on real data.  make test: every test.  Both install what they need into .venv first.
PYTHON ?= python3
PIP_ARGS ?=
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1

.PHONY: env demo wheel test fast proof fuzz newest lock audit wheels bench bench-deployment bench-tables pictures docs tutorials case-studies site app style lint format
.DEFAULT_GOAL := demo

# A line every few seconds, for the time in which pip prints none; it ends with the shell of its rule, by Ctrl-C too.
ALIVE := (while sleep 4 && kill -0 $$$$ 2>/dev/null; do echo "… still installing"; done) & life=$$!;
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Python compiles what it imports; compiling all of it takes half a minute and 300 MB.
INSTALL := $(PIP) install --no-compile $(PIP_ARGS) --config-settings editable_mode=compat -e

# What flfed itself needs, and no tool for tests.
.venv/demo: pyproject.toml setup.py
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "flfed needs Python 3.11 or newer; make env PYTHON=...")'
	$(PYTHON) -m venv .venv
	@echo "Installing what flfed needs; this takes one to two minutes the first time."
	@$(ALIVE) $(INSTALL) ".[demo]"; status=$$?; kill $$life; exit $$status
	@touch $@

# All the rest, into the same environment.
.venv/made: .venv/demo
	@echo "Installing what tests and pages need; this takes a minute or two the first time."
	@$(ALIVE) $(INSTALL) ".[test]"; status=$$?; kill $$life; exit $$status
	@touch $@

env: .venv/made

demo: .venv/demo
	@$(BIN)/flfed demo

app: .venv/demo
	$(BIN)/flfed app

# One file in dist/ that pip installs anywhere.
wheel: .venv/demo
	$(PIP) wheel --no-deps --wheel-dir dist .

style: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

lint: style
	$(BIN)/mypy

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Bytecode is kept, whatever the environment says: else each of the many processes that tests start compiles all of flfed.
test fast proof: export PYTHONDONTWRITEBYTECODE :=

# Files that start servers or browsers come first (tests/conftest.py): what is left for the end is short. More workers than
# cores are no faster (measured), and make tests of seconds uncertain.
# Types are checked meanwhile: where tests wait for servers and browsers there is time for it.
test: style
	@nice -n 19 $(BIN)/mypy & types=$$!; $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder; tests=$$?; \
		wait $$types && exit $$tests

# Without real studies, servers and browsers: a few minutes.
fast: env
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

# What takes minutes by its nature, what real servers show at length, and, first, what holds seconds that a person waits.
# An hour and a half on a quiet machine: before an issue or a release is closed.
proof: env
	$(BIN)/pytest -m "proof and alone"
	$(BIN)/pytest -m "proof and not alone"

# N changed messages at the border of a gate, and a fiftieth as many at whole gates and at a coordinator; SEED is the day's.
fuzz: export FLFED_FUZZ := $(or $(N),1000000)
fuzz: export FLFED_FUZZ_SEED := $(or $(SEED),$(shell date +%Y%m%d))
fuzz: env
	$(BIN)/pytest -s -m "not proof" tests/deployment/fuzz

# requirements.lock: the version and the hashes of each package, for Linux on x86-64 and aarch64.
lock: env
	$(BIN)/python -m tests.lock

# Known vulnerabilities of what the lock lists, by pip-audit; ends with 1 where there are some. Without its service the stored
# answer is shown, and it ends with 2. AUDIT_ARGS="--osv-url URL" names another service.
audit: env
	$(BIN)/python -m tests.audit $(AUDIT_ARGS)

# flfed and all that it needs as wheels in DIR, for machines without internet: hashes, install.sh, list of components.
wheels: env
	$(BIN)/python -m tests.wheels $(DIR) $(PIP_ARGS)

# The tests under the newest versions of all dependencies, in an environment of its own: which bound can be raised.
newest: env
	$(BIN)/python -m tests.newest

# flfed against bare PyTorch loops, boosted trees beside XGBoost, and ten thousand sites: about ten minutes on a quiet machine.
# Writes benchmarks/results.json, the tables of docs/performance.md, and docs/scale.svg; ends with 1 where a limit is missed.
bench: env
	$(BIN)/python -m benchmarks

# Three institutions on this machine (SuperLink, Caddy, TLS) beside plain Flower: under six minutes; needs Debian's caddy, openssl
# and the folder of data files (FLFED_TEST_DATA). Ends with 1 where a round takes more than a quarter of plain Flower's.
bench-deployment: env
	$(BIN)/python -m benchmarks.deployment

# A site's table of a million rows beside pandas, Polars and DuckDB: five minutes, 2 GB.
bench-tables: env
	$(INSTALL) ".[bench]"
	$(BIN)/python -m benchmarks.reading

# The pictures of the app in docs/pictures, from studies run anew: two minutes; needs Debian's chromium.
pictures: env
	$(BIN)/python -m docs.pictures.make

# The references in docs/reference, from the code: a test compares the two.
docs: env
	$(BIN)/python -m docs.make.reference

# The notebooks in docs/tutorials run anew, with their outputs: a minute or two. The consortium needs Debian's caddy.
tutorials: env
	$(BIN)/python -m docs.make.tutorials

# The results, pages and index of docs/case-studies from runs of the shipped studies: ten minutes; FLFED_TEST_DATA is the folder of
# their files. The index alone, from the results: python -m docs.make.case_index.
case-studies: env
	$(BIN)/python -m docs.make.case_studies

# README and docs as a site in build/site, without a network. Ends with 1 where a link or an anchor leads nowhere.
site: env
	$(BIN)/python -m docs.make.site
