# Vigia's interface: `make help` lists the targets, and xtask/src/settings.rs explains each variable. An empty variable
# means the default; for an existing stack, its present value. With `make -s` a target prints only its own output:
# results go to standard output, progress to standard error.
#
# Targets are functions of a program, xtask (xtask/src/targets.rs): `xtask TARGET NAME=value...` builds, tests, measures,
# and calls `bootstrap`, which deploys. The Makefile has their names, and the targets that must work without xtask.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)/debug
XTASK := $(TARGET_DIR)/xtask
VENV := .venv
TOOLS := .tools
LOCAL_DIR ?= .local

# All variables, for every target.
WITH = N="$(N)" STACK="$(STACK)" PROFILE="$(PROFILE)" MIN_PASSWORD="$(MIN_PASSWORD)" HOSTS="$(HOSTS)" UNTIL="$(UNTIL)" \
  CLASSIC_ACCEPT_RISK="$(CLASSIC_ACCEPT_RISK)" ALLOW_CIDR="$(ALLOW_CIDR)" REGION="$(REGION)" ARCH="$(ARCH)" YES="$(YES)" \
  TLS="$(TLS)" TLS_CERT="$(TLS_CERT)" TLS_KEY="$(TLS_KEY)" SPOT="$(SPOT)" LBS="$(LBS)" BOUNDARY="$(BOUNDARY)" \
  INSTANCE_TYPE="$(INSTANCE_TYPE)" CREDITS="$(CREDITS)" POLICY="$(POLICY)" ENDPOINT="$(ENDPOINT)" JSON="$(JSON)" WATCH="$(WATCH)" OF="$(OF)" \
  FOLLOW="$(FOLLOW)" SINCE="$(SINCE)" ACCOUNT="$(ACCOUNT)" SHELL_NAME="$(SHELL_NAME)" ROTATE="$(ROTATE)" NOW="$(NOW)" \
  SKIP_UNUSABLE="$(SKIP_UNUSABLE)" DRY_RUN="$(DRY_RUN)" KEEP="$(KEEP)" ONLY="$(ONLY)" LOCAL_LISTEN="$(LOCAL_LISTEN)" \
  LOCAL_DIR="$(LOCAL_DIR)" PUBLIC="$(PUBLIC)" PUBLIC_TLS="$(PUBLIC_TLS)" SEEDS="$(SEEDS)" FIRST_SEED="$(FIRST_SEED)" SHARD="$(SHARD)" \
  SEED="$(SEED)" CASES="$(CASES)" FROM="$(FROM)" TO="$(TO)" VENV="$(VENV)" TOOLS="$(TOOLS)" FOR="$(FOR)" \
  BOOT_ROOT="$(BOOT_ROOT)" FUNCTION="$(FUNCTION)" WORKER="$(WORKER)" PARTS="$(PARTS)" PEERS="$(PEERS)" LB="$(LB)" \
  ROUNDS="$(ROUNDS)" SECONDS="$(SECONDS)" MINUTES="$(MINUTES)" BENCH_OUT="$(BENCH_OUT)"

# --- The system on this machine -------------------------------------------------------------------
local: ## Run the whole system on this machine: make local N=3 [PROFILE=classic TLS=self-signed]
local-url: ## Print the URL of the local stack
local-token: ## Print the admin token of the local stack
local-status: ## Show the local stack
local-kill: ## Kill the host of one worker, and watch the fleet heal
local-down: | $(TARGET_DIR)/local-cloud ## Stop the local cloud and all that runs in it; users are kept
	@$(TARGET_DIR)/local-cloud down --dir $(LOCAL_DIR)/cloud
local-reset: local-down ## Stop the local cloud and forget everything, users included
	@rm -rf $(LOCAL_DIR)
# --- The system on AWS (or on ENDPOINT) -----------------------------------------------------------
deploy: ## Deploy or update: make deploy N=3 [STACK= REGION= ARCH= PROFILE= TLS= LBS= SPOT= UNTIL= … ENDPOINT=]
plan: ## Say what deploy with the same variables would change, and the cost per month [JSON=1]
status: ## Show the stack: workers, last tick, what is held back and why, drift [WATCH=1]
logs: ## Show logs, without ssh: make logs [OF=worker|lb|reconciler FOLLOW=1 SINCE=10m JSON=1]
doctor: ## Check credentials, clock, tools, quotas, leftovers, reachability [N= ARCH=]
iam-policy: ## Print the IAM policy that the deployer of STACK needs [ACCOUNT=123456789012 BOUNDARY=arn:…]
completions: ## Print completions of the deployer's program: make completions SHELL_NAME=bash|zsh|fish
man: ## Print the manual page of the deployer's program: make -s man | man -l -
scale: ## Set the number of workers: make scale N=5
url: ## Print the URL of the stack
token: ## Print the admin token of the stack [ROTATE=1: a new one]
rotate-session-keys: ## Replace the key that seals sessions [NOW=1: one has leaked, end all sessions]
migrate-profile: ## Turn a classic stack into a secure one, after scale N=0 [DRY_RUN=1 SKIP_UNUSABLE=1]
destroy: ## Remove the stack with all its users: make destroy [YES=1]
aws-acceptance: ## Prove on an AWS account what only an account can: a stack is made, broken, removed [REGION= ARCH= N= YES=1 KEEP=1 ONLY=]
# --- Development ----------------------------------------------------------------------------------
setup: ## Install what builds and tests need, once; says first what that is [FOR=local,test,check,bench,contract,boot-test]
test: ## Run all tests; no AWS account needed
attacks: ## Attack a local stack of release builds, and measure what its other clients see: six minutes once built
cuts: ## Cut deploy and destroy after each of their calls, run them again: about half an hour [FROM= TO=]
consistency: ## Deploy, deploy again and destroy over many seeds of AWS's eventual consistency [SEEDS=20 FIRST_SEED=]
test-full: ## All tests in their full sizes: make test, a million forged cookies, the whole model, attacks, consistency, sim, sim-mutants, cuts
contract: ## Test the running local stack against its /openapi.json, with generated requests [SEED= CASES=]
sim: ## Simulate the reconciler under faults: make sim [SEEDS=10000 FIRST_SEED=1]
sim-fresh: ## Simulate 2,000 seeds that no run had before: about 40 s on two cores [SEEDS= FIRST_SEED=]
sim-latency: ## Simulate single faults: how long until each is noticed and repaired
sim-mutants: ## Break one rule after the other; the simulator must notice [ONLY=name SEEDS= FIRST_SEED=]
mutants: ## Change the planner in 1,500 small ways; a test or the simulator must notice [SHARD=0/4; goes on where it was]
check: ## Formatting, lints, documentation, dependencies, cycles of modules, prose
prose: ## Count words that make sentences hard to read; part of make check [cargo xtask prose --write]
cycles: ## Print modules that use each other in a circle; part of make check [cargo xtask cycles --write]
unused: ## Find dependencies that no source file names; part of make check
one-sdk: ## Check that programs and tests share one build of the AWS SDK; part of make check
bench: ## All benchmarks, one after the other; about half an hour
bench-reconciler: ## Measure the reconciler: plans, ticks, package [FUNCTION=release build of it]
bench-login: ## Measure the login service: about 12 minutes [WORKER=release build PARTS= ROUNDS= SECONDS=]
bench-lb: ## Measure the load balancer and its peers [ROUNDS= SECONDS= PEERS= LB= BENCH_OUT=]
bench-kill: ## Kill a worker under load: what clients see [ROUNDS= PEERS= LB=]
bench-slow: ## 10,000 connections, half of them slow: what others see [ROUNDS= SECONDS= PEERS= LB=]
bench-soak: ## Ten minutes of trouble: nothing may fail [MINUTES= LB=]
bench-pingora: ## Build Pingora as a peer for the benchmarks (once, some minutes; needs cmake)
fmt: ## Format the code
	@cargo fmt --all
build: ## Build all programs for this machine
release-artifacts: ## Build the programs for AWS [ARCH=arm64 or x86_64]; minutes, and 8 GB, the first time
venv: ## Install the emulators of AWS, cargo-lambda and zig: all that make local needs
browser: ## Install what the test of the pages in a browser needs
second-judge: ## Install the second evaluator of IAM policies, which tests compare with the local cloud's
boot-tools: ## Install the tools that check user data and units: cloud-init and systemd
boot-test: ## Boot the user data of a worker and of the load balancer (root, Linux) [BOOT_ROOT=]

# --- How --------------------------------------------------------------------------------------
ALL := $(shell sed -nE 's/^([a-z-]+):.* \#\# .*/\1/p' $(firstword $(MAKEFILE_LIST)))
AWS := deploy plan aws-acceptance
.PHONY: $(ALL)

$(filter-out $(AWS) local-down local-reset fmt help,$(ALL)): $(XTASK)
	@$(XTASK) $@ $(WITH)

# A script looks for credentials and region before cargo starts. One recipe: `make -j` starts prerequisites together.
$(AWS):
	@$(if $(ENDPOINT),,bootstrap/preflight.sh "$(REGION)")
	@$(MAKE) -s $(XTASK)
	@$(XTASK) $@ $(WITH)

# Make compares times, so that cargo is not asked each time.
$(XTASK): xtask/Cargo.toml $(wildcard xtask/src/*.* xtask/src/*/*.* xtask/src/*/*/*.*)
	@if [ ! -e "$@" ]; then echo "building xtask, which builds and runs everything else: less than a minute" >&2; fi
	@cargo build --quiet --package xtask
	@touch -c $@

# `make local-down` must work even when the tree does not build.
$(TARGET_DIR)/local-cloud:
	@$(MAKE) -s build

help: ## List the targets
	@echo "Vigia: a login service that heals and scales itself. Start with: make local N=3"
	@echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)$$/  \1\t\2/' | expand -t 22
