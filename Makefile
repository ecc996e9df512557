# Every target sets up what it needs: Python 3.11+ and make are enough.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: $(shell sed -nE 's/^([a-z-]+):.*/\1/p' $(MAKEFILE_LIST))

help: ## List the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|' 2>/dev/null || sed -nE 's/^([a-z-]+):.*## (.*)/  make \1  \2/p' $(MAKEFILE_LIST)

# Created once, refreshed when the pins or the dependency lists change. The marker is written last,
# so an interrupted installation is repeated.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("offloop needs Python 3.11 or newer; %s is %s. Try: make PYTHON=python3.13" % (sys.executable, sys.version.split()[0]) if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV) || { echo 'No virtual environment could be made. On Debian or Ubuntu: apt install python3-venv' >&2; exit 1; }
	@echo 'Installing the pinned packages into $(VENV) ...'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[executors,gunicorn,loadtests,peers,test]'
	@touch $(READY)

experiment: $(READY) ## Reproduce the 2017 experiment on this machine (3 to 4 minutes)
	$(BIN)/python -m loadtests experiment $(ARGS)

metastable: $(READY) ## An overload that does not go away with what started it, and what helps (6 minutes)
	$(BIN)/python -m loadtests experiment --preset metastable $(ARGS)

serve: $(READY) ## Start the service on http://127.0.0.1:8080
	$(BIN)/python -m service $(ARGS)

test: $(READY) ## Run the tests (11 to 18 minutes on 2 cores, no root)
	$(BIN)/python -m pytest --quiet -m "not alone" --numprocesses 4 --dist worksteal
	$(BIN)/python -m pytest --quiet -m alone tests/process

# What runs in this process alone, and of that what imports the service: tracing doubles its time, and what runs
# in a child (worker_main.py, __main__.py) is not traced at all.
coverage: $(READY) ## Print the branch coverage of service and metrics (2 minutes)
	@$(BIN)/python -m pytest --quiet --numprocesses 4 --cov --cov-report= \
	  $$(grep -lE '^from (service|metrics|tests\.support\.running)\b' tests/unit/test_*.py tests/wire/test_*.py) \
	  tests/process/test_offload.py tests/process/test_stock_executor.py
	@covered() { $(BIN)/coverage report --include="$$1/*" --precision 1 --format total; }; \
	  echo "covered, lines and branches: service $$(covered service) %, metrics $$(covered metrics) %"

lint: $(READY) ## Check format, lint, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

format: $(READY) ## Rewrite the sources in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY) ## Rewrite the generated tables of all pages from the code
	$(BIN)/python docs/tables.py

# uv resolves for the Python of the image, whichever runs here, and takes the hashes from the index.
requirements: ## Rewrite deploy/requirements*.txt, the image's packages with their hashes
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && $(PYTHON) -m venv "$$folder" && \
	  "$$folder/bin/python" -m pip install --quiet --disable-pip-version-check uv && \
	  compile() { "$$folder/bin/uv" pip compile --quiet pyproject.toml --extra loadtests --constraint constraints.txt \
	  --python-version 3.13 --python-platform linux --generate-hashes --no-emit-index-url --no-annotate \
	  --custom-compile-command 'make requirements' "$$@"; } && \
	  compile --output-file deploy/requirements.txt && \
	  compile --extra executors --output-file deploy/requirements-executors.txt

stack: ## Build and try the Docker stack from a clean clone (needs docker)
	.ci/stack

front-door: $(READY) ## Prove the front door with wrk, siege, curl and openssl (3 minutes)
	$(BIN)/python -m tests.proofs.front_door

fuzz: $(READY) ## Send 200,000 malformed requests (10 minutes)
	$(BIN)/python -m tests.proofs.fuzz $(ARGS)

peers: $(READY) ## Our service beside the usual designs under overload (30 minutes)
	$(BIN)/python -m loadtests peers --json docs/proofs/peers.json $(ARGS)

faults: $(READY) ## Kill workers and the service under load, loop for ever, vanish (3 minutes)
	$(BIN)/python -m tests.proofs.faults

lossy: $(READY) ## Stop and restart on a link that loses packets (2 minutes, as root)
	$(BIN)/python -m tests.proofs.lossy

goodbyes: $(READY) ## 1,000 SIGTERMs: plain clients, WebSockets and event streams get their end (20 minutes)
	$(BIN)/python -m tests.proofs.goodbyes $(ARGS)

guided-fuzz: $(READY) ## Early check and workers' channel under atheris, 1,000,000 inputs each (5 minutes)
	$(BIN)/python -m tests.proofs.guided_fuzz $(ARGS)

chaos: $(READY) ## Everything may go wrong at once, for half an hour (30 minutes)
	$(BIN)/python -m tests.proofs.chaos $(ARGS)

soak: $(READY) ## 1,000,000 requests while workers are killed (17 minutes)
	$(BIN)/python -m tests.proofs.faults --soak

restarts: $(READY) ## Stop, restart and reload under load (8 minutes)
	$(BIN)/python -m tests.proofs.restarts

io-processes: $(READY) ## gunicorn under load: kill, HUP, USR2, max-requests, wrk (2 minutes, needs wrk)
	$(BIN)/python -m tests.proofs.io_processes

replicas: $(READY) ## Three replicas behind HAProxy: kill, drain, reconcile, and what they carry (4 minutes, needs haproxy)
	$(BIN)/python -m tests.proofs.replicas

priorities: $(READY) ## Under overload the urgent are answered, and one greedy client costs the others nothing (8 minutes)
	$(BIN)/python -m tests.proofs.priorities $(ARGS)

overload: $(READY) ## What clients feel at 3x and 10x the limit, and what the service says of it (2 minutes)
	$(BIN)/python -m tests.proofs.overload

retries: $(READY) ## 300,000 requests with priorities and retries: every attempt is in the books (5 minutes)
	$(BIN)/python -m tests.proofs.retries

bench-accept: $(READY) ## Our accept path beside aiohttp's own site (2 minutes, needs wrk)
	$(BIN)/python -m tests.proofs.accept_bench $(ARGS)

refusals: $(READY) ## What a refusal costs beside the least that a loop can do (3 minutes)
	$(BIN)/python -m tests.proofs.refusals $(ARGS)

profile: $(READY) ## Where the CPU time of an answer and of a refusal goes (1 minute)
	$(BIN)/python -m tests.proofs.profile

hand-over: $(READY) ## What handing work over costs, and how many cores it feeds (1 minute)
	$(BIN)/python -m tests.proofs.hand_over

executors: $(READY) ## What each executor can do, and Dask beside the stock one (8 minutes)
	$(BIN)/python -m tests.proofs.executors $(ARGS)

memory: $(READY) ## What a connection costs in memory (1 minute)
	$(BIN)/python -m tests.proofs.memory

repeats: $(READY) ## Twelve experiments and twelve A/A runs: do they say the same? (50 minutes)
	$(BIN)/python -m tests.proofs.repeats --preset quick --runs 12
	$(BIN)/python -m tests.proofs.repeats --preset a-a --runs 12

comebacks: $(READY) ## Five runs of metastable: do they say the same? (30 minutes)
	$(BIN)/python -m tests.proofs.repeats --preset metastable --runs 5

neighbours: $(READY) ## The experiment beside a busy core, steady and pulsed (needs stress-ng; 20 minutes)
	$(BIN)/python -m tests.proofs.repeats --runs 3 --neighbour steady
	$(BIN)/python -m tests.proofs.repeats --runs 3 --neighbour pulsed

verdicts: $(READY) ## By simulation: how often is the verdict undecided, or wrong? (10 minutes)
	$(BIN)/python -m tests.proofs.verdicts $(ARGS)

generator: $(READY) ## What the load generator costs per request beside the least a client can do (2 minutes)
	$(BIN)/python -m tests.proofs.generator_bench

capacity: $(READY) ## Does the capacity search find what is there, every time? (20 minutes)
	$(BIN)/python -m tests.proofs.capacity

invalid: $(READY) ## Plant every cause of INVALID, and none twenty times (as root; 4 minutes)
	$(BIN)/python -m tests.proofs.invalid

beside-tools: $(READY) ## Does the load generator measure what wrk and hey measure? (2 minutes, needs wrk and hey)
	$(BIN)/python -m tests.proofs.beside_tools $(ARGS)

known-answers: $(READY) ## Does the load generator tell the truth? A server known to the byte (5 minutes)
	$(BIN)/python -m tests.proofs.known_answers

clean: ## Remove the virtual environment and the caches (run folders stay)
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .coverage offloop.egg-info
