# Everything happens in .venv, made on first use; only Python >= 3.10 with venv, and make, are needed.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: demo test check clean

demo: $(READY)
	$(BIN)/crosskey demo --output demo-output

test: $(READY)
	$(BIN)/python -m pytest -q

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# torch goes first and alone, at the pinned version, so that nothing else can choose another build
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps -e .
	@touch $(READY)

clean:
	rm -rf .venv demo-output
