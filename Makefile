# Everything a developer does with this checkout. `make` lists the targets; each fetches the tools that it needs
# (tools/bootstrap) into a directory outside the tree.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

WITH_TOOLS := tools/bootstrap
WITH_LAB := tools/bootstrap --lab

# For audit, drift, harden, prove, recommend, rollback and uninstall: which hosts. The embedded default is the lab.
INVENTORY ?= inventories/lab
LIMIT ?=
ARGS ?=

# For rollback: which transaction, an id or `last`; without one they are listed.
ID ?=

# For certificates: a directory to make, and the names and addresses of one server.
DIR ?=
NAMES ?=

# For molecule: which scenario; all of them when empty.
S ?=

# A checkout is tested with its own configuration, whatever the user's environment says.
lint types unit oldest newest bench docs molecule demo: export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
lint types unit oldest newest bench docs molecule demo: export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/playbooks/collections

# For your own hosts, your own configuration counts, if there is one.
audit drift harden prove recommend rollback uninstall: export ANSIBLE_CONFIG ?= $(CURDIR)/ansible.cfg

PLAY = $(WITH_TOOLS) -- ansible-playbook --inventory "$(INVENTORY)" $(if $(LIMIT),--limit "$(LIMIT)") $(ARGS)

##@ See it
.PHONY: demo
demo: ## Attack and harden a disposable Docker host, and show what changed
	@$(WITH_LAB) -- tools/demo/run

.PHONY: audit
audit: ## Judge your hosts by the CIS benchmark, read-only: make audit INVENTORY=path LIMIT=pattern
	@$(PLAY) playbooks/audit.yml

.PHONY: harden
harden: ## Harden your hosts: make harden INVENTORY=path LIMIT=pattern ARGS='--check --diff'
	@$(PLAY) playbooks/harden.yml

.PHONY: drift
drift: ## What is no longer as harden left it, and who owns it, read-only: make drift INVENTORY=path
	@$(PLAY) playbooks/drift.yml

.PHONY: prove
prove: ## Attack your hosts, those with docker_proof_allowed: make prove INVENTORY=path LIMIT=pattern
	@$(PLAY) playbooks/prove.yml

.PHONY: recommend
recommend: ## Options for each running container, with evidence, read-only: make recommend INVENTORY=path
	@$(PLAY) playbooks/recommend.yml

.PHONY: rollback
rollback: ## List transactions, or undo one: make rollback INVENTORY=path ID=last
	@$(PLAY) $(if $(ID),--extra-vars "bulkhead_rollback=$(ID)") playbooks/rollback.yml

.PHONY: uninstall
uninstall: ## Give everything back: make uninstall INVENTORY=path LIMIT=pattern
	@$(PLAY) playbooks/uninstall.yml

.PHONY: certificates
certificates: ## For a first trial of the API over the network: make certificates DIR=new-folder NAMES='192.0.2.10 docker.test'
	@$(WITH_TOOLS) -- python -m lab.certificates "$(DIR)" $(NAMES)

##@ Prove it
.PHONY: test
test: lint types unit oldest newest molecule ## Everything: lint, types, unit tests, every Molecule scenario

.PHONY: test-fast
test-fast: lint types unit ## What needs no virtual host (under 3 minutes)

.PHONY: test-full
test-full: test bench docs ## What a release needs: all tests, all kill points, 20 kills, 5 power cuts, benchmarks, docs
	@BULKHEAD_KILLS=20 $(WITH_TOOLS) -- python -m pytest tests/unit/test_apply_kills.py
	@BULKHEAD_KILLS=20 BULKHEAD_POWER_CUTS=5 SCENARIO_MINUTES=120 $(WITH_LAB) -- tools/molecule-all faults

.PHONY: lint
lint: ## Style of YAML, roles, Python, shell and changelog fragments
	@$(WITH_TOOLS) --package shellcheck -- tools/lint

.PHONY: types
types: ## mypy --strict on plugins, filters, lab and tools
	@$(WITH_TOOLS) -- mypy

.PHONY: unit
unit: ## Unit tests: make unit ARGS='-k profile'
	@$(WITH_TOOLS) --package apparmor --package chromium -- python -m pytest $(ARGS)

.PHONY: oldest
oldest: ## The tests that depend on ansible-core, on the oldest release that is supported
	@$(WITH_TOOLS) -- tools/other-core oldest

.PHONY: newest
newest: ## The same tests on the newest ansible-core, where there is a Python for it
	@$(WITH_TOOLS) -- tools/other-core newest

.PHONY: molecule
molecule: ## Every scenario on real hosts, or one: make molecule S=default
	@$(WITH_LAB) -- tools/molecule-all $(S)

.PHONY: bench
bench: ## Measure round trips, requests and times
	@$(WITH_LAB) -- python -m pytest $(ARGS) tests/benchmarks

##@ Release it
.PHONY: docs
docs: ## Build a site of the documentation into reports/docs/html; a warning is an error; and run its commands
	@$(WITH_TOOLS) -- tools/docs
	@$(WITH_TOOLS) -- python -m pytest tests/docs

.PHONY: build
build: ## Build the collection into build/
	@$(WITH_TOOLS) -- ansible-galaxy collection build --force --output-path build

.PHONY: environment
environment: build ## Write the context of an execution environment into build/environment
	@rm -rf build/environment
	@$(WITH_TOOLS) -- ansible-builder create --output-filename Containerfile --context build/environment

.PHONY: changelog
changelog: ## Release galaxy.yml's version: turn the waiting fragments into its notes
	@$(WITH_TOOLS) -- antsibull-changelog release

##@ Housekeeping
.PHONY: clean
clean: ## Remove what these targets left in the tree (not the caches outside it)
	@rm -rf build reports .ansible .hypothesis .mypy_cache .pytest_cache .ruff_cache changelogs/.plugin-cache.yaml
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

.PHONY: help
help: ## This list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
