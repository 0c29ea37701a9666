# Everything that a contributor or a newcomer runs.  `make` alone prints this list.

PYTHON ?= python3
BIN := .venv/bin
# One installation per state of the lock file: `make` redoes it when that has changed.
INSTALLED := .venv/.installed
# The tests wait for servers more than they compute.
WORKERS ?= $(shell expr `nproc` + 1)

.DEFAULT_GOAL := help
.PHONY: help setup demo test unit image test-image test-cluster cluster-sample fmt lint types contracts
.PHONY: coverage docs ci bench bench-page chaos chaos-short hostile charts manifests lock clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## Make .venv with everything in it

$(INSTALLED): requirements.lock pyproject.toml
	@command -v git >/dev/null || { echo "git is missing: apt-get install -y make git python3-venv"; exit 1; }
	@echo "setting up .venv (about half a minute)"
	@$(PYTHON) -m venv .venv || { echo "python3-venv is missing: apt-get install -y make git python3-venv"; exit 1; }
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		--editable .
	@touch $@

demo: setup ## Build an image from git on this machine, all parts real, and stop everything again
	@$(BIN)/brokkr local demo examples/hello-image

test: setup ## Run all tests, on real PostgreSQL, kube-apiserver, git, buildah and registry; OPTIONS=
	@$(BIN)/brokkr local prepare
	@$(BIN)/python -m pytest --numprocesses=$(WORKERS) $(OPTIONS)

unit: setup ## Run the tests that start nothing
	@$(BIN)/python -m pytest tests/unit tests/architecture

image: setup ## Build the image of broker and agent into build/image; OPTIONS=--help lists more
	@$(BIN)/python deploy/image/make_image.py $(OPTIONS)

test-image: setup ## Build the image twice, look into it, and run broker and agent from it
	@$(BIN)/brokkr local prepare
	@$(BIN)/python -m pytest -m image tests/image

test-cluster: setup ## Run the end-to-end suite against a cluster of yours: KUBECONFIG=, and what it asks for
	@$(BIN)/python -m pytest -m cluster tests/cluster

cluster-sample: setup ## Write the repository that test-cluster builds from into build/sample.git
	@$(BIN)/brokkr local prepare
	@PYTHONPATH=tests $(BIN)/python tests/cluster/publish_sample.py build

fmt: setup ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix --quiet .

lint: setup ## Look for mistakes of form
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

types: setup ## Check the types
	@$(BIN)/mypy

contracts: setup ## Check who may import whom
	@$(BIN)/lint-imports

coverage: setup ## Run all tests and show what they do not reach; takes twice the time of `make test`
	@$(BIN)/brokkr local prepare
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest --numprocesses=$(WORKERS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report --fail-under=80

ci: lint types contracts test test-image chaos-short ## All that a change has to pass

docs: setup ## Build the documentation as a site, into build/docs; a warning is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "build/docs/index.html"

bench: setup ## Measure broker and agent on this machine; throughput alone takes a quarter of an hour
	@for each in throughput depth fan_out parked_polls indexes leases agent \
		many_agents growth crowding start_up redaction; do \
		$(BIN)/python benchmarks/$$each.py || exit 1; done

hostile: setup ## Try hostile input at depth, with seeds that are printed; OPTIONS=--help lists more
	@$(BIN)/python tests/hostile.py $(OPTIONS)

bench-page: setup ## Write docs/reference/benchmarks.md anew from what `make bench` has left
	@$(BIN)/python benchmarks/page.py

chaos: setup ## Do the system harm at random, and look whether it keeps its promises: SEED=, MINUTES=
	@$(BIN)/brokkr local prepare
	@$(BIN)/python -m chaos $(foreach each,$(SEED),--seed $(each)) $(if $(MINUTES),--minutes $(MINUTES))

chaos-short: setup ## The same in less than three minutes: the faults of a fixed seed, and of a new one
	@$(BIN)/brokkr local prepare
	@$(BIN)/python -m chaos --seed 6 --seed new --minutes 0.4

charts: setup ## Write anew what the charts repeat of the code, and of their own values
	@PYTHONPATH=tests $(BIN)/python tests/architecture/test_charts_generated.py

manifests: setup ## Render the charts into build/manifests, for kubectl apply; BROKER= and AGENT=: values
	@$(BIN)/python charts/manifests.py build/manifests \
		$(if $(BROKER),--broker $(BROKER)) $(if $(AGENT),--agent $(AGENT))

lock: setup ## Write requirements.lock anew from pyproject.toml
	@$(BIN)/uv pip compile --quiet --upgrade --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --no-annotate --all-extras \
		pyproject.toml --output-file requirements.lock

clean: ## Remove what make has made, but no caches
	@rm -rf .venv .coverage* build dist
