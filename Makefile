# Two commands do all the set-up: `make demo` and `make test`. Nothing else is needed beforehand but Python 3.11.
SHELL := /bin/sh
PYTHON ?= python3
# Most tests wait for processes: one worker more than a small machine has cores.
WORKERS ?= 3
RUN = "$$($(PYTHON) tools/environment.py run)"
DEV = "$$($(PYTHON) tools/environment.py dev)"

.PHONY: demo test up bench interop check format lock clean

demo: ## set everything up, run two people's functions on this machine, leave nothing running
	@py=$(RUN) && "$$py" -m muster.cli.demo

up: ## the same, and leave it running until Ctrl+C
	@py=$(RUN) && "$$py" -m muster.cli.demo --keep

test: check ## all tests, the official packages among them
	@py=$(DEV) && "$$py" -m pytest -q -n $(WORKERS) --dist loadfile

check: ## formatting, lint, strict types
	@py=$(DEV) && "$$py" -m ruff format --check -q src tests tools bench && "$$py" -m ruff check -q src tests tools bench && "$$py" -m mypy

interop: ## only the official SDK and endpoint against ours
	@py=$(DEV) && "$$py" -m pytest -q -m interop tests/interop

bench: ## compare with the official SDK and endpoint on the same service
	@py=$(DEV) && "$$py" -m bench

format:
	@py=$(DEV) && "$$py" -m ruff format -q src tests tools bench && "$$py" -m ruff check -q --fix src tests tools bench

lock: ## renew the hashed requirements (needs uv); no addresses are written
	uv pip compile -q pyproject.toml requirements/build.in --extra all --universal --generate-hashes --no-header --no-annotate --no-emit-index-url --python-version 3.11 -o requirements/all.lock
	uv pip compile -q pyproject.toml requirements/build.in --extra all --group dev --universal --generate-hashes --no-header --no-annotate --no-emit-index-url --python-version 3.11 -o requirements/dev.lock

clean:
	rm -rf .venv .venv-* build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
