# Vigia's interface: `make help` lists the targets. With `make -s` a target prints only its own
# output; results go to standard output, progress to standard error.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help local local-url local-token local-status local-kill local-down local-reset \
        deploy status scale url token destroy release-artifacts test contract check fmt build venv browser \
        bench sim sim-latency sim-mutants bench-reconciler

# --- Parameters -----------------------------------------------------------------------------------
# Number of workers. Empty: 3 for a new stack, as it is for an existing one.
N ?=
STACK ?= vigia
# secure or classic. Empty: secure for a new stack, as it is for an existing one.
PROFILE ?=
# Characters that a new password must have, 8 to 64. Empty: 8 for a new stack, as it is for an existing one.
MIN_PASSWORD ?=
REGION ?=
ARCH ?=
YES ?=
# self-signed: TLS on port 5443 as well, with a certificate made here; off. Empty: as it is.
TLS ?=
# Or with this certificate and its private key, two files in PEM.
TLS_CERT ?=
TLS_KEY ?=
# An AWS endpoint other than AWS, for example http://127.0.0.1:4566 for the local cloud.
ENDPOINT ?=

LOCAL_LISTEN ?= 127.0.0.1:4566
LOCAL_ENDPOINT := http://$(LOCAL_LISTEN)
LOCAL_DIR ?= .local
PUBLIC ?= 127.0.0.1:5000
PUBLIC_TLS ?= 127.0.0.1:5443
# Addresses that must be free before anything is started.
RESERVED = $(PUBLIC)$(if $(filter-out off,$(TLS))$(TLS_CERT),$(COMMA)$(PUBLIC_TLS))
COMMA := ,

# The simulator's seeds: how many, and which is the first. Empty: its own numbers.
SEEDS ?=
FIRST_SEED ?=
SEED ?=
CASES ?=

CARGO_TARGET := $(or $(CARGO_TARGET_DIR),target)
TARGET_DIR := $(CARGO_TARGET)/debug
VENV := .venv
TOOLS := .tools

# --- How the programs are called ------------------------------------------------------------------
# The local cloud takes these placeholder credentials and no real ones.
PLACEHOLDER := AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test
CLEAN_ENV := env -u AWS_PROFILE -u AWS_SESSION_TOKEN -u AWS_ENDPOINT_URL -u AWS_REGION -u AWS_DEFAULT_REGION
WITH_TOOLS := VIGIA_CARGO_LAMBDA="$(CURDIR)/$(VENV)/bin/cargo-lambda"
LOCAL_BOOTSTRAP := $(CLEAN_ENV) $(PLACEHOLDER) $(WITH_TOOLS) $(TARGET_DIR)/bootstrap --stack "$(STACK)" \
  --endpoint-url $(LOCAL_ENDPOINT) --region us-east-1 --token-file "$(LOCAL_DIR)/$(STACK).token"

# Against ENDPOINT, credentials of the environment are used if there are any.
ifneq ($(ENDPOINT),)
BOOTSTRAP = $(CLEAN_ENV) AWS_ACCESS_KEY_ID="$${AWS_ACCESS_KEY_ID:-test}" \
  AWS_SECRET_ACCESS_KEY="$${AWS_SECRET_ACCESS_KEY:-test}" $(WITH_TOOLS) $(TARGET_DIR)/bootstrap --stack "$(STACK)" \
  --endpoint-url "$(ENDPOINT)" --region "$(or $(REGION),us-east-1)" --token-file "$(LOCAL_DIR)/$(STACK).token"
ARTIFACTS := $(TARGET_DIR)
BUILT := build
else
BOOTSTRAP = $(WITH_TOOLS) $(TARGET_DIR)/bootstrap --stack "$(STACK)" $(if $(REGION),--region "$(REGION)")
ARTIFACTS := $(CARGO_TARGET)/release-artifacts
BUILT := build release-artifacts
endif

SEED_FLAGS = $(if $(SEEDS),--seeds $(SEEDS)) $(if $(FIRST_SEED),--first-seed $(FIRST_SEED))
DEPLOY_FLAGS = $(if $(N),--workers="$(N)") $(if $(PROFILE),--profile "$(PROFILE)") $(if $(ARCH),--arch "$(ARCH)") \
  $(if $(MIN_PASSWORD),--min-password "$(MIN_PASSWORD)") \
  $(if $(TLS),--tls "$(TLS)") $(if $(TLS_CERT),--tls-cert "$(TLS_CERT)") $(if $(TLS_KEY),--tls-key "$(TLS_KEY)")

# --- The system on this machine -------------------------------------------------------------------
local: venv build ## Run the whole system on this machine: make local N=3 [PROFILE=classic TLS=self-signed]
	@$(LOCAL_BOOTSTRAP) deploy $(DEPLOY_FLAGS) --check
	@$(TARGET_DIR)/local-cloud up --listen $(LOCAL_LISTEN) --dir $(LOCAL_DIR)/cloud --venv $(VENV) --reserve $(RESERVED)
	@$(LOCAL_BOOTSTRAP) deploy $(DEPLOY_FLAGS) --artifacts $(TARGET_DIR)

local-url: build ## Print the URL of the local stack
	@$(LOCAL_BOOTSTRAP) url

local-token: build ## Print the admin token of the local stack
	@$(LOCAL_BOOTSTRAP) token

local-status: build ## Show the local stack
	@$(LOCAL_BOOTSTRAP) status

local-kill: build ## Kill the host of one worker, and watch the fleet heal
	@$(TARGET_DIR)/local-cloud fault kill-host --endpoint $(LOCAL_ENDPOINT) --tag vigia:role=worker --tag "vigia:stack=$(STACK)"

local-down: $(TARGET_DIR)/local-cloud ## Stop the local cloud and all that runs in it; users are kept
	@$(TARGET_DIR)/local-cloud down --dir $(LOCAL_DIR)/cloud

local-reset: local-down ## Stop the local cloud and forget everything, users included
	@rm -rf $(LOCAL_DIR)

# --- The system on AWS (or on ENDPOINT) -----------------------------------------------------------
deploy: venv $(BUILT) ## Deploy or update: make deploy N=3 [STACK= REGION= ARCH= PROFILE= MIN_PASSWORD= TLS= ENDPOINT=]
	@$(BOOTSTRAP) deploy $(DEPLOY_FLAGS) --artifacts $(ARTIFACTS)

status: build ## Show the stack: workers, last tick, what is held back and why
	@$(BOOTSTRAP) status

scale: build ## Set the number of workers: make scale N=5
	@$(BOOTSTRAP) scale "$(N)"

url: build ## Print the URL of the stack
	@$(BOOTSTRAP) url

token: build ## Print the admin token of the stack
	@$(BOOTSTRAP) token

.PHONY: rotate-session-keys
NOW ?=
rotate-session-keys: build ## Replace the key that seals sessions [NOW=1: one has leaked, end all sessions]
	@$(BOOTSTRAP) rotate-session-keys $(if $(NOW),--now)

.PHONY: migrate-profile
SKIP_UNUSABLE ?=
DRY_RUN ?=
migrate-profile: build ## Turn a classic stack into a secure one, after scale N=0 [DRY_RUN=1 SKIP_UNUSABLE=1]
	@$(BOOTSTRAP) migrate-profile $(if $(SKIP_UNUSABLE),--skip-unusable) $(if $(DRY_RUN),--dry-run)

destroy: build ## Remove the stack with all its users: make destroy [YES=1]
	@$(BOOTSTRAP) destroy $(if $(YES),--yes)

# --- Development ----------------------------------------------------------------------------------
test: venv browser boot-tools build ## Run all tests; no AWS account needed
	@cargo test --workspace

# The tool is not among the emulators' packages: it is large, and nothing else needs it.
CONTRACT := $(TOOLS)/contract
contract: $(CONTRACT)/.installed ## The running local stack against its /openapi.json, by generated requests [SEED= CASES=]
	@cd ec2-worker/tests/contract && VIGIA_URL="$$($(MAKE) -s -C "$(CURDIR)" local-url)" VIGIA_TOKEN="$$($(MAKE) -s -C "$(CURDIR)" local-token)" \
	  SCHEMATHESIS_HOOKS=hooks PYTHONDONTWRITEBYTECODE=1 "$(abspath $(CONTRACT))/bin/schemathesis" --config-file schemathesis.toml \
	  run "$$($(MAKE) -s -C "$(CURDIR)" local-url)/openapi.json" --workers 1 --max-examples "$(or $(CASES),50)" $(if $(SEED),--seed "$(SEED)")

$(CONTRACT)/.installed: ec2-worker/tests/contract/requirements.txt
	@echo "installing schemathesis into $(CONTRACT) (once, about a minute)" >&2
	@python3 -m venv --clear $(CONTRACT)
	@$(CONTRACT)/bin/pip install --quiet --disable-pip-version-check -r $< >&2
	@touch $@

sim: ## Simulate the reconciler under faults: make sim [SEEDS=10000 FIRST_SEED=1]
	@cargo build --profile sim -p sim --quiet
	@$(CARGO_TARGET)/sim/sim run $(SEED_FLAGS)

sim-latency: ## Simulate single faults: how long until each is noticed and mended
	@cargo build --profile sim -p sim --quiet
	@$(CARGO_TARGET)/sim/sim latency $(SEED_FLAGS)

# In a target directory of its own: each build would undo the other.
sim-mutants: ## Break one rule after the other; the simulator must notice [SEEDS= FIRST_SEED=]
	@cargo build --profile sim -p sim --quiet --features planted --target-dir $(CARGO_TARGET)/planted
	@$(CARGO_TARGET)/planted/sim/sim mutants $(SEED_FLAGS)

check: ## Formatting, lints, documentation, dependencies
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets --quiet -- -D warnings
	@RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
	@if [ ! -x $(TOOLS)/bin/cargo-deny ]; then \
	  echo "installing cargo-deny into $(TOOLS) (once, some minutes)" >&2; \
	  cargo install --quiet --locked --version $(CARGO_DENY) --root $(TOOLS) cargo-deny; \
	fi
	@$(TOOLS)/bin/cargo-deny --locked --log-level error check bans licenses sources

bench: ## All benchmarks, one after the other; about half an hour
	@missed=0; for bench in bench-lb bench-kill bench-slow bench-reconciler bench-login; do \
	  $(MAKE) -s $$bench || missed=1; \
	done; exit $$missed

# Without FUNCTION, ticks and package are those of the dev profile, whose AWS SDK is not optimised. A
# release build of it takes a quarter of an hour and 8 GB: cargo build --release -p reconciler.
FUNCTION ?= $(TARGET_DIR)/reconciler
bench-reconciler: build ## Measure the reconciler: plans, ticks, package [FUNCTION=release build of it]
	@cargo build --profile sim --package bench --quiet
	@ulimit -n hard; $(CARGO_TARGET)/sim/bench-reconciler --function "$(FUNCTION)"

# The login service; see bench/src/login. WORKER is a built worker; empty: this tree's. PARTS is a list,
# by commas, of sign-ins, protected, overload, timing, guessing, race, list, start; empty: all. ROUNDS of
# sign-ins and hashes, SECONDS of the flood.
.PHONY: bench-login
WORKER ?=
PARTS ?=
bench-login: ## Measure the login service: about 12 minutes [WORKER=release build PARTS= ROUNDS= SECONDS=]
	@$(if $(WORKER),,cargo build --release --quiet --package ec2-worker)
	@cargo build --release --quiet --package bench
	@$(CARGO_TARGET)/release/bench-login --worker "$(or $(WORKER),$(CARGO_TARGET)/release/ec2-worker)" \
	  $(if $(PARTS),--parts $(PARTS)) $(BENCH_ROUNDS) $(if $(SECONDS),--seconds $(SECONDS))

# The load balancer against its peers, each alone on a core; see bench/src/balancer. PEERS is a list of
# nginx, haproxy, pingora, caddy, by commas; empty: all that are there. LB is a built load balancer;
# empty: this tree's. ROUNDS, SECONDS and MINUTES empty: the programs' own.
.PHONY: bench-lb bench-kill bench-slow bench-soak bench-pingora bench-programs
PEERS ?=
LB ?=
ROUNDS ?=
MINUTES ?=
BENCH_OUT ?= target/bench
BENCH_BALANCER = PATH="$$PATH:/usr/sbin" $(CARGO_TARGET)/release/bench-balancer
BENCH_FLAGS = --ours "$(or $(LB),$(CARGO_TARGET)/release/ec2-lb)" \
  --pingora "$(CARGO_TARGET)/pingora/release/pingora-peer" $(if $(PEERS),--peers $(PEERS))
BENCH_ROUNDS = $(if $(ROUNDS),--rounds $(ROUNDS))

bench-lb: bench-programs ## Measure the load balancer and its peers [ROUNDS= SECONDS= PEERS= LB= BENCH_OUT=]
	@$(BENCH_BALANCER) compare $(BENCH_FLAGS) $(BENCH_ROUNDS) $(if $(SECONDS),--seconds $(SECONDS)) --out "$(BENCH_OUT)"

bench-kill: bench-programs ## Kill a worker under load: what clients see [ROUNDS= PEERS= LB=]
	@$(BENCH_BALANCER) kill $(BENCH_FLAGS) $(BENCH_ROUNDS)

bench-slow: PEERS := $(or $(PEERS),ours)
bench-slow: bench-programs ## 10,000 connections, half of them slow: what others see [ROUNDS= SECONDS= PEERS= LB=]
	@$(BENCH_BALANCER) slow $(BENCH_FLAGS) $(BENCH_ROUNDS) $(if $(SECONDS),--seconds $(SECONDS))

bench-soak: bench-programs ## Ten minutes of trouble: nothing may fail [MINUTES= LB=]
	@$(BENCH_BALANCER) soak $(BENCH_FLAGS) $(if $(MINUTES),--minutes $(MINUTES))

bench-pingora: ## Build Pingora as a peer for the benchmarks (once, some minutes; needs cmake)
	@bench/install-peers.sh cmake
	@cargo build --release --quiet --locked --manifest-path bench/pingora/Cargo.toml --target-dir "$(CARGO_TARGET)/pingora"

bench-programs:
	@bench/install-peers.sh nginx haproxy
	@$(if $(LB),,cargo build --release --quiet --package ec2-lb)
	@cargo build --release --quiet --package bench

fmt: ## Format the code
	@cargo fmt --all

# What stops things must work even when the tree does not build.
$(TARGET_DIR)/local-cloud:
	@$(MAKE) -s build

# One command for everything that is built, so that features, and with them the AWS SDK, are
# compiled once.
build: ## Build all programs for this machine
	@cargo build --workspace --bins --quiet

CARGO_DENY := 0.20.2

# For AWS: release builds against the glibc of Amazon Linux 2023, the function by cargo-lambda.
TRIPLE = $(if $(filter arm64,$(or $(ARCH),$(shell uname -m | sed s/aarch64/arm64/))),aarch64,x86_64)-unknown-linux-gnu
release-artifacts: venv
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" cargo-lambda lambda build --release --locked --target $(TRIPLE).2.34 \
	  --package ec2-lb --package ec2-worker --package reconciler
	@mkdir -p $(ARTIFACTS)
	@for program in ec2-lb ec2-worker reconciler; do \
	  cp $(CARGO_TARGET)/lambda/$$program/bootstrap $(ARTIFACTS)/$$program; \
	done

venv: $(VENV)/.installed
$(VENV)/.installed: local-cloud/requirements.txt
	@if ! command -v python3 >/dev/null; then \
	  echo "error: python3 is missing; the emulators of AWS are Python programs." >&2; \
	  echo "  Install Python 3.9 or later (Debian: apt-get install python3 python3-venv) and try again." >&2; \
	  exit 8; \
	fi
	@echo "installing the AWS emulators into $(VENV) (once, about a minute)" >&2
	@if ! python3 -m venv --clear $(VENV) >/dev/null 2>&1; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing python3-venv" >&2; \
	    apt-get update -qq >&2 && apt-get install -y -qq python3-venv >&2 && python3 -m venv --clear $(VENV); \
	  else \
	    echo "error: this Python cannot make a virtual environment." >&2; \
	    echo "  Install its venv module (Debian: apt-get install python3-venv) and try again." >&2; \
	    exit 8; \
	  fi; \
	fi
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps -r local-cloud/requirements.txt >&2
	@touch $@

# The pages are tried in a browser: Debian's, driven by Playwright. Where it cannot be installed, that
# one test says that it was not run.
browser: $(VENV)/.browser ## Install what the test of the pages in a browser needs
	@if ! command -v chromium >/dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing chromium (once, about a minute)" >&2; \
	    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	      apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; } >&2 \
	      || echo "warning: chromium cannot be installed; the pages are not tried in a browser" >&2; \
	  else \
	    echo "warning: chromium is missing; the pages are not tried in a browser" >&2; \
	    echo "  Install it (Debian: apt-get install chromium) and try again." >&2; \
	  fi; \
	fi

$(VENV)/.browser: $(VENV)/.installed bootstrap/tests/browser/requirements.txt
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps -r bootstrap/tests/browser/requirements.txt >&2
	@touch $@

# What judges the user data without booting it. Debian's cloud-init would run at this machine's next boot,
# and take a cloud server for a new one: it is switched off before it is installed.
.PHONY: boot-tools boot-test
boot-tools: ## Install what judges user data and units: cloud-init and systemd's tools
	@missing=; \
	command -v cloud-init >/dev/null || missing="cloud-init"; \
	command -v systemd-analyze >/dev/null || missing="$$missing systemd"; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing $$missing (once)" >&2; \
	  case $$missing in cloud-init*) mkdir -p /etc/cloud && touch /etc/cloud/cloud-init.disabled;; esac; \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends $$missing; } >&2 \
	    || echo "NOT RUN: $$missing cannot be installed; the user data is not held against it" >&2; \
	else \
	  echo "NOT RUN: $$missing is missing; the user data is not held against it" >&2; \
	  echo "  Install it (Debian: apt-get install $$missing) and try again." >&2; \
	fi

# The root is made once, in four minutes. It is no part of `make test`: it needs root, 700 MB and a kernel with overlayfs.
BOOT_ROOT ?= $(CARGO_TARGET)/boot-root
boot-test: venv build ## Boot the user data of a worker and of the load balancer (root, Linux) [BOOT_ROOT=]
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	  ! { command -v systemd-nspawn && PATH="$$PATH:/usr/sbin" command -v debootstrap; } >/dev/null; then \
	  echo "installing debootstrap and systemd-container (once)" >&2; \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends debootstrap systemd-container; } >&2; \
	fi
	@bootstrap/tests/boot/make-root.sh "$(abspath $(BOOT_ROOT))" $(VENV)/bin/pip local-cloud/requirements.txt
	@VIGIA_BOOT_ROOT="$(abspath $(BOOT_ROOT))" cargo test --workspace --quiet --test boot

help: ## List the targets
	@echo "Vigia: a login service that heals and scales itself. Start with: make local N=3"
	@echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)$$/  \1\t\2/' | expand -t 20
