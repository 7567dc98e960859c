# Two commands: `make sweep` and `make test`. Both set up .venv first, from the lock.
#
#   make sweep [DATA=~/music] [TRIALS=32] [MAX_STEPS=1000] [DRY_RUN=1]
#   make test [ARGS="-k damage"]   three files at a time; ARGS=-n0 one
#   make chaos     faults, injected for up to half an hour (docs/durability.md)
#   make cluster-demo   a cluster in miniature that loses machines (docs/cluster.md)
#   make check     ruff and mypy
#   make lock      resolve requirements.lock anew
#   make pictures  draw the pictures of the documentation anew

PYTHON ?= python3
DATA ?= demo
BIN := .venv/bin
READY := .venv/.ready
SCRIPT ?= sweeps/lr_momentum.py

# A value as one word of the shell, whatever is in it.
quoted = '$(subst ','\'',$(1))'
settings = $(if $(filter-out demo,$(DATA)),DATA=$(call quoted,$(DATA))) $(if $(MAX_STEPS),MAX_STEPS=$(MAX_STEPS))
again = $(strip make sweep $(settings))

.DEFAULT_GOAL := help
.PHONY: help setup sweep test chaos cluster-demo check lock pictures

help:
	@sed -n 's/^#   //p' Makefile

setup: $(READY)

sweep: $(READY)
	@$(BIN)/python -m cluster \
		--resume-hint $(call quoted,To go on where this stopped: $(strip $(again) $(if $(TRIALS),TRIALS=$(TRIALS)))) \
		$(SCRIPT) -- \
		--data $(call quoted,$(DATA)) $(if $(TRIALS),--trials $(call quoted,$(TRIALS))) \
		$(if $(MAX_STEPS),--max-steps $(call quoted,$(MAX_STEPS))) $(if $(DRY_RUN),--dry-run) \
		--relative-to $(call quoted,$(CURDIR)) --unshift-command $(BIN)/unshift \
		--again-command $(call quoted,$(again) TRIALS={trials})

# Three workers, a file to each at a time: half of the time they wait for others. One thread each: tiny
# tensors gain nothing from more.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

chaos: $(READY)
	$(BIN)/python -m pytest -m chaos -s $(ARGS)

cluster-demo: $(READY)
	$(BIN)/python -m pytest -n0 -m chaos -s --no-header $(ARGS) tests/chaos/test_mini_cluster.py

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock: $(READY)
	$(BIN)/uv pip compile pyproject.toml --universal --generate-hashes --no-emit-index-url \
		--extra sweep --extra export --extra cluster --group dev --custom-compile-command "make lock" \
		--quiet $(ARGS) --output-file requirements.lock

pictures: $(READY)
	$(BIN)/python docs/pictures.py

# uv installs the lock in a fraction of pip's time; pip installs uv, held to the lock's hashes.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v < (3, 14) or \
		sys.exit("unshift needs Python 3.11 to 3.13: make PYTHON=python3.12 …; this is %d.%d" % v)'
	@echo "Setting up .venv (about 6 GB, a minute or two, once) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@awk '/^uv==/{found=1} found{print} found && !/\\$$/{exit}' requirements.lock > .venv/uv.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--require-hashes --requirement .venv/uv.lock
	@$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $(READY)
