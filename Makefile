# Two commands on a bare machine: `make book` and `make test`. Both set up what they need, in .venv, from requirements.lock.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS := .venv-peers

# Compiled bytecode saves every process 10 to 30 s of importing torch and PennyLane.
unexport PYTHONDONTWRITEBYTECODE
# A kernel runs in its notebook's folder, where a relative data root would point elsewhere. The shell makes it absolute: make
# would split it at spaces and run what looks like a function of its own.
ifdef HQNN_DATA
export HQNN_DATA := $(shell case "$$HQNN_DATA" in ([/~]*) ;; (*) printf %s "$$PWD/" ;; esac; printf %s "$$HQNN_DATA")
endif

.DEFAULT_GOAL := help
.PHONY: help setup book test lint pdf epub version release run lab chapters numbers results bench bench-circuits bench-experiment bench-sweep peers lock clean

help:  ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/make \1\t\2/' | expand -t 24

NOT_READY = { echo "$(VENV) is not set up: the lines above name a package that could not be had from the package index" \
  "(PyPI, or the one that pip and uv are told of), or that is not the one of requirements.lock." \
  "Run make again when it can be; once set up, nothing needs the index." >&2; exit 1; }

# uv is the one thing that pip installs, and only with a hash of the lock: it checks those of all others. Nothing is built here
# from source, since no lock holds what a build would fetch.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "This book needs Python 3.11 or newer, and $(PYTHON) is `$(PYTHON) -V`: try make PYTHON=python3.12 …"; exit 1; }
	@test -x $(BIN)/uv || { echo "Setting up $(VENV), once: some minutes and 7 GB"; $(PYTHON) -m venv $(VENV) && \
	  sed -n '/^uv==/,/[^\]$$/p' requirements.lock | $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --only-binary :all: --no-deps --require-hashes --requirement /dev/stdin; } || $(NOT_READY)
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes --no-build requirements.lock || $(NOT_READY)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable . || $(NOT_READY)
	@touch $@

setup: $(READY)  ## make the environment in .venv, from the lock

book: $(READY)  ## render the book from the executed chapters
	rm -rf _build/html
	$(BIN)/jupyter-book build . -W --keep-going --quiet
	@echo "The book is rendered: open file://$(abspath _build/html/index.html)"

pdf: book  ## print the whole book into one PDF, with Chromium
	$(BIN)/python tools/pdf.py _build/html _build/book.pdf
	@echo "The book is printed: file://$(abspath _build/book.pdf)"

epub: book  ## the whole book for e-readers, with formulas as MathML
	$(BIN)/python tools/epub.py _build/html _build/book.epub
	@echo "The book is packed: file://$(abspath _build/book.epub)"

version: $(READY)  ## give what is unreleased a version, everywhere: make version NEW=1.2.3
	$(BIN)/python tools/release.py --version '$(value NEW)'

release: export SOURCE_DATE_EPOCH = $(shell git log -1 --format=%ct)
release: $(READY)  ## make what a release publishes, in dist/, if all versions agree
	$(BIN)/python tools/release.py --check
	$(MAKE) pdf epub
	$(BIN)/python tools/release.py

# Two workers on two cores: a second thread in each would only wait for the other. In the order of the files: by the number of
# their tests, which is the default, the longest would come last and one worker would wait for the other. Chapters run as whoever
# installed the package runs them: from its wheel, and with no checkout to find.
WHEEL := _build/wheel
PYTEST := $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder
test: export OMP_NUM_THREADS := 1
test: $(READY)  ## run every check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	rm -rf $(WHEEL) && $(BIN)/python -m hatchling build --target wheel --directory $(WHEEL) && \
	  $(BIN)/python -m zipfile -e $(WHEEL)/*.whl $(WHEEL)/installed
	PYTHONPATH="$$PWD/$(WHEEL)/installed" HQNN_DATA="$${HQNN_DATA:-$$PWD/data/cache}" $(PYTEST) --nbval book
	$(PYTEST) --jaxtyping-packages=hqnn_utils,beartype.beartype tests

lint: $(READY)  ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

run: $(READY)  ## execute a chapter: make run CHAPTER=pqc ARGS="-p theta 0.3"
	@test -n "$$CHAPTER" || { echo 'Which chapter? make run CHAPTER=pqc'; $(BIN)/hqnn run; exit 2; }
	$(BIN)/hqnn run "$$CHAPTER" $(value ARGS)

lab: $(READY)  ## open JupyterLab on the book
	$(BIN)/jupyter lab book $(value ARGS)

chapters: $(READY)  ## run every chapter with its default parameters and renew its committed outputs
	for chapter in book/*/*.ipynb; do $(BIN)/hqnn run $$chapter --output $$chapter --overwrite || exit 1; done
	$(MAKE) numbers

numbers: $(READY)  ## write the recorded numbers into the sentences of all pages, and the picture of README.md
	$(BIN)/hqnn numbers README.md book/*.md book/*/*.md book/*/*.ipynb
	$(BIN)/python tools/readme_picture.py

results: $(READY)  ## run the sweeps of data/sweeps and renew the tables under data/results that chapters read
	for file in data/sweeps/*.toml; do name=$$(basename $$file .toml); $(BIN)/hqnn sweep $$file && \
	  $(BIN)/hqnn results runs/$$name --wide --output data/results/$$name.csv || exit 1; done
	$(BIN)/hqnn results runs/depth --group-by depth,entangler,dataset --metric gain_ent_classical \
	  --output book/guide/depth_means.csv --plot book/guide/depth.svg
	$(BIN)/python benchmarks/activations.py

bench: $(READY)  ## time the quantum layer against other systems
	$(BIN)/python benchmarks/layer.py $(ARGS)

# In the peers' environment, if it is there: it has everything that is timed.
bench-circuits: $(READY)  ## time a suite of circuits as layers, by CircuitLayer and by others
	$$(test -x $(PEERS)/bin/python && echo $(PEERS) || echo $(VENV))/bin/python benchmarks/circuits.py $(ARGS)

bench-experiment: $(READY)  ## time the features, the table of twelve and the seeds of Experiment 3
	$(BIN)/python benchmarks/experiment.py $(ARGS)

bench-sweep: $(READY)  ## time a sweep of many small runs against a loop with papermill
	$(BIN)/python benchmarks/sweeps.py $(ARGS)

peers: $(READY)  ## make the environment of the other systems that `make bench` times
	$(PYTHON) -m venv $(PEERS)
	$(BIN)/uv pip install --quiet --python $(PEERS)/bin/python --requirement benchmarks/peers.txt
	$(BIN)/uv pip install --quiet --python $(PEERS)/bin/python --no-deps --editable .

lock: $(READY)  ## resolve the dependencies of pyproject.toml anew
	$(BIN)/uv lock --upgrade
	$(BIN)/uv export --quiet --no-emit-project --all-extras --no-annotate --no-header --output-file requirements.lock

clean:  ## remove what was built (not .venv, not the data)
	rm -rf _build dist runs
