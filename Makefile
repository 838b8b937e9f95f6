# make run: set up .venv and open the page.  make test: set up and run every test, in three processes: while one waits for a server, two use both cores.  make lint: style and types.
# make translations: texts of the page for translators.
# make space: the folder to push to a Hugging Face Space.  make coverage: which lines the tests run.  make test-oldest: core tests with the lowest versions that are allowed.  make test-ray: runs in a small Ray cluster.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
OLDEST := .venv-oldest
RAY    := .venv-ray
ARGS   ?=
JOBS   ?= 3

.PHONY: run test lint space coverage test-oldest test-ray translations clean
.DEFAULT_GOAL := run

run: $(VENV)/.installed
	$(BIN)/python app.py $(ARGS)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

space:
	$(PYTHON) .ci/space.py $(ARGS)

# docs/translating.md
translations: $(VENV)/.installed-dev
	$(BIN)/python .ci/messages.py $(ARGS)

# the page's tests drive servers that are killed, which leaves no figure of them
coverage: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --ignore tests/ui --cov --cov-report=term $(ARGS)

# not part of `make test`: it starts a Ray cluster of two nodes on this machine; docs/scaling-ray.md
test-ray: $(RAY)/.installed
	$(RAY)/bin/python -m pytest tests/launchers/test_ray.py $(ARGS)

test-oldest: $(OLDEST)/.installed
	$(OLDEST)/bin/python -m pytest -n $(JOBS) --dist loadfile --ignore tests/ui $(ARGS)

# a stamp is newer than the files it was made from, so a change of requirements installs again
$(VENV)/.installed: requirements.txt constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing PyTorch and the rest into $(VENV): some minutes, 6 GB."
	$(BIN)/python -m pip install --disable-pip-version-check -e . -c constraints.txt
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --disable-pip-version-check -q -e '.[dev]' -c constraints.txt
	touch $@

$(RAY)/.installed: requirements.txt constraints.txt pyproject.toml
	test -x $(RAY)/bin/python || $(PYTHON) -m venv $(RAY)
	@echo "Installing PyTorch, Ray and the rest into $(RAY): some minutes, 6 GB."
	$(RAY)/bin/python -m pip install --disable-pip-version-check -q -e '.[dev,ray]' -c constraints.txt
	touch $@

# every lower bound of requirements.txt becomes an exact version; needs a Python for which those have wheels (3.10, 3.11)
$(OLDEST)/.installed: requirements.txt pyproject.toml
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	sed -E 's/>=([0-9.]+).*/==\1/' requirements.txt > $(OLDEST)/lowest.txt
	@echo "Installing the lowest versions into $(OLDEST): some minutes, 6 GB."
	$(OLDEST)/bin/python -m pip install --disable-pip-version-check -q -e '.[dev]' -c $(OLDEST)/lowest.txt
	touch $@

clean:
	rm -rf $(VENV) $(OLDEST) $(RAY) build *.egg-info
