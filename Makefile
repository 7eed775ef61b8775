# `make demo` and `make test` set up what they need; a second run installs nothing.
# make demo ARGS=data.read.interactions=1000000
VENV := .venv
PY := $(VENV)/bin/python
export MPLCONFIGDIR := $(CURDIR)/$(VENV)/matplotlib
# Tests without Ray run in so many processes, a file in one.
PROCESSES := 2
BESIDE := -n $(PROCESSES) --dist loadfile --no-loadscope-reorder

.PHONY: setup demo test check unit ray thorough nodes golden bench docs clean
.DELETE_ON_ERROR:

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.lock pyproject.toml
	test -x $(PY) || python3 -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: setup
	$(VENV)/bin/rec prepare rec/configs/demo.toml $(ARGS)
	$(VENV)/bin/rec train rec/configs/demo.toml $(ARGS)
	$(VENV)/bin/rec evaluate rec/configs/demo.toml $(ARGS)
	$(VENV)/bin/rec report rec/configs/demo.toml $(ARGS)
	$(VENV)/bin/rec export rec/configs/demo.toml $(ARGS)
	@echo "serve it: $(VENV)/bin/rec serve out/demo/run/export/msmrec"

test: check ray

check: setup
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(PY) -m pytest -p no:cacheprovider $(BESIDE) -m "not ray and not thorough"

# The tests to run at every change: no Ray, no real data, no whole run.
unit: setup
	$(PY) -m pytest -p no:cacheprovider $(BESIDE) tests/unit -m "not ray and not data and not thorough"

ray: setup
	$(PY) -m pytest -p no:cacheprovider -m "ray and not nodes and not thorough"

# What `make test` leaves out: variants, and commands killed at more of their writes.
thorough: setup
	$(PY) -m pytest -p no:cacheprovider -m "thorough and not nodes" --deselect tests/end_to_end/test_deaths.py
	REC_DEATHS=24 $(PY) -m pytest -p no:cacheprovider tests/end_to_end/test_deaths.py

# Lost nodes, heads, links and stores on real nodes of this machine: as root, with nothing else running.
nodes: setup
	$(PY) -m pytest -p no:cacheprovider -m nodes

# Renews the numbers on file of every small run, on purpose; the commit says why.
golden: setup
	$(PY) -m tests.golden.runs

bench: setup
	$(VENV)/bin/rec benchmark evaluate
	$(VENV)/bin/rec benchmark train

# README, docs, results and the API as a site; pages open as files, searching takes a server.
# Not --quiet: mkdocs would count no warnings, and strict would mean nothing.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict
	@echo "build/site/index.html; to search it: $(PY) -m http.server --directory build/site"

clean:
	rm -rf out $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
