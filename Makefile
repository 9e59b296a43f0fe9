# From a fresh clone: `make bench` measures the quick plan and says what it costs, `make test` runs
# checks and tests.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: bench site test check bench-self calibration preflight readme pictures clean
.PHONY: night-lock night-fit night-run night-verdict night-learn night-issues night-publish

.venv/installed: requirements/cpu.txt requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -r requirements/dev.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@

bench: .venv/installed
	$(BIN)/epochmark run --plan quick --strict
	$(BIN)/epochmark show --costs latest
# On a machine that is busy with other work there may be no row to recommend from.
	-$(BIN)/epochmark advise resnet50 latest
	$(BIN)/epochmark report

# The report of the committed results, to be published or opened from disk.
site: .venv/installed
	$(BIN)/epochmark report --out site --summary site/summary.md --asv

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check
	$(BIN)/epochmark data fetch
	# By file, because tests of one file share the processes that import a framework.
	$(BIN)/pytest --numprocesses 2 --dist loadfile

# What Epochmark itself costs, and what this machine can tell apart: into results/calibration and
# results/noise. Takes hours; leave the machine alone.
bench-self: .venv/installed calibration
	$(BIN)/pytest tests/benchmarks --override-ini addopts= --benchmark-autosave

# Its noise and false alarms, then slowdowns of 5 and 2 % that are planted and searched for, and pairs
# beside a process that comes and goes.
SEARCHED := lstm_eta/smoke/train/jax lstm_eta/smoke/train/torch lstm_eta/smoke/train/tensorflow
TOLD := $(BIN)/python -m tests.benchmarks.calibration
calibration: .venv/installed
	$(BIN)/epochmark doctor --calibrate --pairs 10
	$(TOLD) alarms
	$(BIN)/epochmark run --only '*/smoke/infer/*/float32/*/cpu' --replicates 6
	-$(BIN)/epochmark doctor --drift
	$(TOLD) halves
	for cell in $(SEARCHED); do $(TOLD) planted $$cell/float32/functional/cpu 7 5 300 || exit 1; done
	$(TOLD) planted lstm_eta/smoke/train/jax/float32/functional/cpu 3 2 1200
	$(TOLD) foretold
	$(TOLD) contended lstm_eta/smoke/train/jax/float32/functional/cpu 10 6

# A night on a measuring machine, step by step: .github/workflows/nightly.yml calls these targets.
PLAN ?= nightly
DEVICE ?= cpu
ONLY ?= */$(DEVICE)
REPLICATES ?= 5
# The id of the price that runs are costed at; empty is the one in pyproject.toml.
PRICE ?=
RESULTS ?= results
NIGHT ?= .night
NIGHT_cpu :=
NIGHT_gpu := cuda-tensorflow cuda-jax cuda-torch
NIGHT_tpu := tpu-jax
# What is there as locked is left as it is.
night-lock: .venv/installed
	$(BIN)/pip check
	for name in $(NIGHT_$(DEVICE)); do $(BIN)/epochmark env create $$name || exit 1; done
night-fit: .venv/installed
	$(BIN)/epochmark doctor --device $(DEVICE) --results '$(RESULTS)' --strict
night-run: .venv/installed
	$(BIN)/epochmark run --plan $(PLAN) --only '$(ONLY)' --replicates $(REPLICATES) \
	  $(if $(PRICE),--price '$(PRICE)') --results '$(RESULTS)' --strict
night-verdict: .venv/installed
	$(BIN)/epochmark night --out '$(NIGHT)' --results '$(RESULTS)'
# What the machine does between nights, for the next one's verdict; unknown before the third.
night-learn: .venv/installed
	-$(BIN)/epochmark doctor --drift --results '$(RESULTS)'
night-issues:
	.github/open-issues '$(NIGHT)'
night-publish:
	.github/publish-results

# What fits on accelerators that are not here, at standard scale; takes hours on two cores.
PREFLIGHT := tpu-v4 tpu-v5e tpu-v5p tpu-v6e cuda-h100 cuda-a100 cuda-l4 cuda-t4
preflight: .venv/installed
	$(BIN)/pip install --quiet --requirement requirements/preflight.txt
	for device in $(PREFLIGHT); do \
	  $(BIN)/epochmark preflight --device $$device --scale standard || exit 1; \
	done

# The generated parts: README's tables and the schema of results files.
readme: .venv/installed
	$(BIN)/python -m harness.readme
	$(BIN)/python -m harness.schema_json > results/schema.json

# The README's pictures, by the report's own pages in Debian's chromium; look at them afterwards.
pictures: .venv/installed
	$(BIN)/python -m tests.pictures

clean:
	rm -rf .venv .asv .benchmarks .night build site *.egg-info
