# `make demo` and `make test` do all their own set-up, into .venv.

PYTHON ?= python3
BIN := .venv/bin
export IMAGE ?=
export TEXT ?=

.PHONY: demo test lint docs wheel pages matrix results compatibility constraints clean

demo: .venv/ready  ## Ground an embedded scene, and IMAGE with TEXT if given; figures go to demo_output/.
	$(BIN)/adapters demo $${IMAGE:+"$$IMAGE"} $${TEXT:+"$$TEXT"}

test: .venv/ready  ## Run every test, one thread on each of two cores; beside the pinned versions, warnings of dependencies fail nothing: plain pytest.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -W error -n 2

lint: .venv/ready  ## Check style, types and spelling.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell *.md .github docs plugins examples vlm_adapters

# mkdocs refuses a site within docs/, Zensical one outside of it. Neither fetches anything.
docs: .venv/ready  ## Build the site into dist/site; a warning, such as a link that leads nowhere, is an error.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --config-file docs/mkdocs.yml --site-dir ../dist/site
	$(BIN)/zensical build --strict --config-file docs/mkdocs.yml

wheel: .venv/ready  ## Build the wheel into dist/, and install it on every Python here, without torch.
	rm -rf dist/*.whl
	$(BIN)/python -m build --wheel --no-isolation --outdir dist .
	.ci/release/check_wheel.sh dist/*.whl

pages: .venv/ready  ## Write the generated pages of docs/: families, reference, pictures of the concepts, llms.txt.
	$(BIN)/python examples/lab/write_families.py
	$(BIN)/python examples/lab/write_reference.py
	$(BIN)/python examples/lab/draw_concepts.py
	$(BIN)/python examples/lab/write_llms.py

matrix: .venv/ready  ## Run the conformance suite over every adapter, and write the support matrix into docs/families.md.
	$(BIN)/adapters check --all --json | $(BIN)/python tests/write_matrix.py

results: .venv/ready  ## Write docs/results.md from the reports in examples/lab/results.
	$(BIN)/python examples/lab/write_results.py

compatibility: .venv/ready  ## Run suite, recorded maps and examples on every admitted stack: docs/compatibility.md.
	$(BIN)/python .ci/compatibility.py

NEWEST := .compatibility/constraints
constraints:  ## Renew the pins: the newest releases in a fresh environment, all tests, freeze.
	$(PYTHON) -m venv --clear $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet --upgrade pip
	$(NEWEST)/bin/python -m pip install --quiet --editable ".[all]" --group dev --group docs
	$(NEWEST)/bin/python -m pytest
	(sed -n '/^#/p' .ci/constraints.txt; $(NEWEST)/bin/python -m pip freeze --all --exclude-editable | sed 's/+.*//') > $(NEWEST)/pins
	cp $(NEWEST)/pins .ci/constraints.txt

.venv/ready: pyproject.toml .ci/constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade --constraint .ci/constraints.txt pip
	$(BIN)/python -m pip install --quiet --constraint .ci/constraints.txt --build-constraint .ci/constraints.txt \
		--editable ".[all]" --group dev --group docs
	touch $@

clean:  ## Remove what the commands above made.
	rm -rf .venv .compatibility demo_output dist docs/.site docs/.cache
