# Every command of the study. On a fresh machine with Python 3.11.4 or newer, `make study` is all it takes: the first target
# that needs Python packages makes .venv from requirements.txt; later ones find it there.

PROFILE ?= demo
# Where torch comes from: empty takes the default wheel; cpu, cu130, auto and so on are uv's --torch-backend.
TORCH_BACKEND ?=
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11, 4))' >/dev/null 2>&1 && echo $$p && break; done)

READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help study verify report test lint bench setup requirements pictures clean clean-all

help:
	@echo "make study       run the notebooks of a profile: tables, figures, report in results/demo/ (PROFILE=demo or another file of profiles/)"
	@echo "make verify      run a profile again into build/ and compare every row with the committed one"
	@echo "make report      assemble results/<profile>/report.html from the executed notebooks"
	@echo "make test        the tests, and every notebook at the smallest profile"
	@echo "make lint        style of code and notebooks"
	@echo "make bench       times and memory of every part on this machine: a table and a picture in results/bench/ (10 minutes)"
	@echo "make setup       only make .venv (TORCH_BACKEND=cpu for a torch without CUDA, with uv); .venv/bin/ssr is the command"
	@echo "make requirements  make requirements.txt from pyproject.toml (needs uv; UPGRADE=1 takes the newest of everything)"
	@echo "make pictures    draw the pictures of data/README.md anew into data/pictures/"
	@echo "make clean       remove build/, caches and trial results; clean-all removes .venv/ too; data/ stays"

study: $(READY)
	.venv/bin/ssr study --profile $(PROFILE)

verify: $(READY)
	.venv/bin/ssr verify --profile $(PROFILE)

report: $(READY)
	.venv/bin/ssr report --profile $(PROFILE)

test: $(READY)
	.venv/bin/python -m pytest --numprocesses auto --dist loadfile

lint: $(READY)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

bench: $(READY)
	mkdir -p results/bench
	echo what,seconds,there,note,against,goal,megabytes > results/bench/table.csv
	for part in search rerank metrics self_similarity drawing scale; do \
		BENCH_TABLE=results/bench/table.csv .venv/bin/python benchmarks/$$part.py || exit 1; done
	.venv/bin/python benchmarks/picture.py results/bench/table.csv

setup: $(READY)

# uv where it is installed or pip can bring it, else pip. torch needs setuptools, so the project itself is installed with
# the pinned one (--no-build-isolation) and nothing outside requirements.txt is fetched.
$(READY): requirements.txt pyproject.toml
	@set -e; \
	if uv --version >/dev/null 2>&1; then uv=uv; else uv=; fi; \
	if ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11, 4))' >/dev/null 2>&1; then \
		if [ -n "$$uv" ]; then uv venv --quiet --clear --python "$(or $(PYTHON),3.12)" .venv; \
		elif [ -z "$(PYTHON)" ]; then echo "Python 3.11.4 or newer is wanted and none was found; install it, or uv" >&2; exit 1; \
		else $(PYTHON) -m venv --clear .venv || { \
			echo "$(PYTHON) cannot make a virtual environment; install its venv package (python3-venv on Debian), or uv" >&2; exit 1; }; \
		fi; \
	fi; \
	if [ -z "$$uv" ] && .venv/bin/python -m pip install --quiet uv && .venv/bin/uv --version >/dev/null 2>&1; then uv=.venv/bin/uv; fi; \
	if [ -n "$$uv" ]; then \
		echo "installing requirements.txt into .venv with uv"; \
		$$uv pip install --quiet --compile-bytecode --python .venv/bin/python $(if $(TORCH_BACKEND),--torch-backend $(TORCH_BACKEND)) -r requirements.txt; \
		$$uv pip install --quiet --compile-bytecode --python .venv/bin/python --no-deps --no-build-isolation -e .; \
	else \
		echo "installing requirements.txt into .venv with pip"; \
		$(if $(TORCH_BACKEND),echo "TORCH_BACKEND needs uv; pip takes the default torch";) \
		.venv/bin/python -m pip install --quiet -r requirements.txt; \
		.venv/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .; \
	fi; \
	touch $@

# Pins for Linux and macOS. Those that still fit pyproject.toml stay; UPGRADE=1 takes the newest of everything. What torch
# itself pins to the byte for CUDA is left to torch, so that a torch without CUDA fits too.
requirements:
	cp requirements.txt requirements.part
	uv pip compile --quiet --universal --python-version 3.11 --extra test --no-annotate --no-header \
		$(if $(UPGRADE),--upgrade) --output-file requirements.part pyproject.toml
	{ echo "# Versions of every package, for Linux and macOS, Python 3.11 and newer. Made by: make requirements"; \
	grep -vE "^(#|nvidia|cuda|triton|pywinpty|colorama|httpx2-jsfetch)" requirements.part; } > requirements.txt
	rm requirements.part

pictures: $(READY)
	.venv/bin/python -m drawn_landmarks.contact data/pictures

clean:
	rm -rf build results/smoke results/custom-* .pytest_cache .ruff_cache .hypothesis ssr_lib.egg-info
	find . -name __pycache__ -not -path "./.venv/*" -prune -exec rm -rf {} +

clean-all: clean
	rm -rf .venv
