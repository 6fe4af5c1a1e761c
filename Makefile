# make demo: install into .venv and optimise a network on real pictures. make test: install and run the tests.
# make test-browser: the pages in Chromium. make docs: the documentation as a site, in .cache/site.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
DOCS_INSTALLED := .venv/.docs-installed

.PHONY: demo test test-browser docs lint format clean

demo: $(INSTALLED)
	$(BIN)/python benchmarks/demo.py

test: $(INSTALLED)
	$(BIN)/pytest --numprocesses 2 --dist worksteal --durations 30

# The pages in a real Chromium (Debian's package, or what SLIMCV_CHROMIUM names); without one this fails.
test-browser: $(INSTALLED)
	SLIMCV_BROWSER_TESTS=required $(BIN)/pytest tests/report/browser

# A link that leads nowhere, a marker without a meaning or anything loaded from elsewhere ends the build.
docs: $(DOCS_INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --clean --quiet
	@echo .cache/site/index.html

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .cache .mypy_cache .pytest_cache .ruff_cache

# torch first and by its exact version: that is the CPU build.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: $(PYTHON) is older than Python 3.11"; echo "hint: make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

$(DOCS_INSTALLED): $(INSTALLED)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@
