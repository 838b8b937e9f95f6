# make run: set up .venv and open the page.  make test: set up and run every test, on two cores.  make lint: style and types.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=
JOBS   ?= 2

.PHONY: run test lint clean
.DEFAULT_GOAL := run

run: $(VENV)/.installed
	$(BIN)/python app.py $(ARGS)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# a stamp is newer than the files it was made from, so a change of requirements installs again
$(VENV)/.installed: requirements.txt constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing PyTorch and the rest into $(VENV): some minutes, 6 GB."
	$(BIN)/python -m pip install --disable-pip-version-check -q -e . -c constraints.txt
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --disable-pip-version-check -q -e '.[dev]' -c constraints.txt
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
