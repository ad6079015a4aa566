# Vigia's interface: `make help` lists the targets. With `make -s` a target prints only its own
# output; results go to standard output, progress to standard error.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help local local-url local-token local-status local-kill local-down local-reset \
        deploy plan status scale url token destroy release-artifacts test contract check fmt build venv browser \
        bench sim sim-latency sim-mutants bench-reconciler

# --- Parameters -----------------------------------------------------------------------------------
# Number of workers. Empty: 3 for a new stack, as it is for an existing one.
N ?=
STACK ?= vigia
# secure or classic. Empty: secure for a new stack, as it is for an existing one.
PROFILE ?=
# Characters that a new password must have, 8 to 64. Empty: 8 for a new stack, as it is for an existing one.
MIN_PASSWORD ?=
# Host names under which the service answers, or any. Empty: any for a new stack, as it is for an existing one.
HOSTS ?=
# yes: a classic stack may be reached from blocks that are not private.
CLASSIC_ACCEPT_RISK ?=
REGION ?=
ARCH ?=
YES ?=
# What deploy waits for: made, healthy, rolled-out (every machine is of the release). Empty: rolled-out.
UNTIL ?=
# self-signed: TLS on port 5443 as well, with a certificate made here; off. Empty: as it is.
TLS ?=
# Or with this certificate and its private key, two files in PEM.
TLS_CERT ?=
TLS_KEY ?=
# Blocks that may reach the load balancer, separated by commas. Empty: everybody may reach a new stack, an
# existing one keeps its blocks.
ALLOW_CIDR ?=
# 1: workers are spot instances; 0: on demand. Empty: on demand for a new stack, as it is for an existing one.
SPOT ?=
# Load balancers, 1 or 2. Empty: 1 for a new stack, as it is for an existing one.
LBS ?=
# ARN of a policy that limits the stack's roles. Empty: none for a new stack, as it is for an existing one.
BOUNDARY ?=
INSTANCE_TYPE ?=
# standard: workers and load balancers of a burstable type stop earning a bill once they have served for five
# minutes; unlimited: they never do. Empty: standard for a new stack, as it is for an existing one.
CREDITS ?=
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
RELEASE_DIR := $(CARGO_TARGET)/release-artifacts
VENV := .venv
TOOLS := .tools

# --- How the programs are called ------------------------------------------------------------------
# The local cloud takes these placeholder credentials and no real ones; they are its account's root.
PLACEHOLDER := AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test
CLEAN_ENV := env -u AWS_PROFILE -u AWS_SESSION_TOKEN -u AWS_ENDPOINT_URL -u AWS_REGION -u AWS_DEFAULT_REGION
WITH_TOOLS := VIGIA_CARGO_LAMBDA="$(abspath $(VENV))/bin/cargo-lambda"
LOCAL_PROGRAM = $(WITH_TOOLS) $(TARGET_DIR)/bootstrap --stack "$(STACK)" \
  --endpoint-url $(LOCAL_ENDPOINT) --region "$(LOCAL_REGION)" --token-file "$(LOCAL_DIR)/$(STACK).token"
LOCAL_REGION = $(if $(ENDPOINT),$(or $(REGION),us-east-1),us-east-1)
LOCAL_BOOTSTRAP = $(CLEAN_ENV) $(PLACEHOLDER) $(LOCAL_PROGRAM)
# Whoever deploys to the local cloud is a user there with exactly the policy that `iam-policy` prints.
BOUND = $(if $(BOUNDARY),--permissions-boundary "$(BOUNDARY)")
AS_DEPLOYER = policy="$$($(LOCAL_BOOTSTRAP) --quiet iam-policy --account 000000000000 $(BOUND))" && \
  keys="$$($(TARGET_DIR)/local-cloud user "deployer-$(STACK)" --endpoint $(LOCAL_ENDPOINT) <<< "$$policy")" && export $$keys
LOCAL_DEPLOYER = $(AS_DEPLOYER) && $(CLEAN_ENV) $(LOCAL_PROGRAM)

# Against ENDPOINT, credentials of the environment are used if there are any; else, on the local cloud, those
# of its user who deploys. They are exported, because the arguments of `env` stand in the process list.
ifneq ($(ENDPOINT),)
BOOTSTRAP = $(if $(filter $(LOCAL_ENDPOINT),$(ENDPOINT:/=)),if [ -z "$${AWS_ACCESS_KEY_ID:-}" ]; then $(AS_DEPLOYER); fi &&) \
  export AWS_ACCESS_KEY_ID="$${AWS_ACCESS_KEY_ID:-test}" AWS_SECRET_ACCESS_KEY="$${AWS_SECRET_ACCESS_KEY:-test}" && \
  $(CLEAN_ENV) $(WITH_TOOLS) $(TARGET_DIR)/bootstrap --stack "$(STACK)" \
  --endpoint-url "$(ENDPOINT)" --region "$(or $(REGION),us-east-1)" --token-file "$(LOCAL_DIR)/$(STACK).token"
ARTIFACTS := $(TARGET_DIR)
else
BOOTSTRAP = $(WITH_TOOLS) $(TARGET_DIR)/bootstrap --stack "$(STACK)" $(if $(REGION),--region "$(REGION)")
ARTIFACTS := $(RELEASE_DIR)
endif

SEED_FLAGS = $(if $(SEEDS),--seeds $(SEEDS)) $(if $(FIRST_SEED),--first-seed $(FIRST_SEED))
DEPLOY_FLAGS = $(if $(N),--workers="$(N)") $(if $(PROFILE),--profile "$(PROFILE)") $(if $(ARCH),--arch "$(ARCH)") \
  $(if $(MIN_PASSWORD),--min-password "$(MIN_PASSWORD)") $(if $(HOSTS),--hosts "$(HOSTS)") \
  $(if $(CLASSIC_ACCEPT_RISK),--classic-accept-risk) \
  $(if $(INSTANCE_TYPE),--instance-type "$(INSTANCE_TYPE)") $(if $(ALLOW_CIDR),--allow-cidr "$(ALLOW_CIDR)") \
  $(if $(SPOT),--spot="$(SPOT)") $(if $(CREDITS),--credits "$(CREDITS)") \
  $(if $(LBS),--lbs "$(LBS)") $(if $(BOUNDARY),--permissions-boundary "$(BOUNDARY)") \
  $(if $(TLS),--tls "$(TLS)") $(if $(TLS_CERT),--tls-cert "$(TLS_CERT)") $(if $(TLS_KEY),--tls-key "$(TLS_KEY)")

# --- The system on this machine -------------------------------------------------------------------
# Nobody but this machine reaches a local stack, and classic wants to be told so.
local: ALLOW_CIDR := $(or $(ALLOW_CIDR),$(if $(filter classic,$(PROFILE)),127.0.0.0/8))
local: venv build ## Run the whole system on this machine: make local N=3 [PROFILE=classic TLS=self-signed]
	@$(LOCAL_BOOTSTRAP) deploy $(DEPLOY_FLAGS) --check
	@$(TARGET_DIR)/local-cloud up --listen $(LOCAL_LISTEN) --dir $(LOCAL_DIR)/cloud --venv $(VENV) --reserve $(RESERVED)
	@$(LOCAL_DEPLOYER) deploy $(DEPLOY_FLAGS) --until healthy --artifacts $(TARGET_DIR)

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
# What is cheap to find out comes first: credentials and region before cargo starts, then what the account
# allows, by the deployer alone, and only then the release builds, which take half an hour the first time.
# One recipe, because `make -j` starts prerequisites at the same time.
.PHONY: checked deployer
checked:
	@$(if $(ENDPOINT),,bootstrap/preflight.sh "$(REGION)")
	@$(MAKE) -s $(if $(ENDPOINT),venv build,deployer)
	@$(BOOTSTRAP) preflight $(DEPLOY_FLAGS)
	@$(if $(ENDPOINT),,$(MAKE) -s release-artifacts)

# All packages are named, so that features are those of `make build`: nothing is compiled twice.
deployer:
	@cargo build --workspace --bin bootstrap --quiet

deploy: checked ## Deploy or update: make deploy N=3 [STACK= REGION= ARCH= PROFILE= TLS= LBS= SPOT= UNTIL= … ENDPOINT=]
	@$(BOOTSTRAP) deploy $(DEPLOY_FLAGS) $(if $(UNTIL),--until "$(UNTIL)") --artifacts $(ARTIFACTS)

plan: checked ## Say what deploy with the same variables would change, and the cost per month [JSON=1]
	@$(BOOTSTRAP) plan $(DEPLOY_FLAGS) --artifacts $(ARTIFACTS) $(if $(JSON),--json)

.PHONY: logs doctor iam-policy completions man
WATCH ?=
status: build ## Show the stack: workers, last tick, what is held back and why, drift [WATCH=1]
	@$(BOOTSTRAP) status $(if $(WATCH),--watch)

# worker, lb or reconciler. Empty: the last lines of all three.
OF ?=
FOLLOW ?=
SINCE ?=
logs: build ## Show logs, without ssh: make logs [OF=worker|lb|reconciler FOLLOW=1 SINCE=10m]
	@$(BOOTSTRAP) logs $(OF) $(if $(FOLLOW),--follow) $(if $(SINCE),--since "$(SINCE)")

doctor: venv build ## Check credentials, clock, tools, quotas, leftovers, reachability [N= ARCH=]
	@$(BOOTSTRAP) doctor $(if $(N),--workers="$(N)") $(if $(ARCH),--arch "$(ARCH)")

ACCOUNT ?=
iam-policy: build ## Print the IAM policy that the deployer of STACK needs [ACCOUNT=123456789012 BOUNDARY=arn:…]
	@$(BOOTSTRAP) iam-policy $(if $(ACCOUNT),--account "$(ACCOUNT)") $(BOUND)

completions: build ## Print completions of the deployer's program: make completions SHELL_NAME=bash|zsh|fish
	@$(TARGET_DIR)/bootstrap completions "$(or $(SHELL_NAME),bash)"

man: build ## Print the manual page of the deployer's program: make -s man | man -l -
	@$(TARGET_DIR)/bootstrap man

scale: build ## Set the number of workers: make scale N=5
	@$(BOOTSTRAP) scale "$(N)"

url: build ## Print the URL of the stack
	@$(BOOTSTRAP) url

ROTATE ?=
token: build ## Print the admin token of the stack [ROTATE=1: a new one]
	@$(BOOTSTRAP) token $(if $(ROTATE),rotate)

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

# Its stack has a name of its own, unless STACK= is given.
.PHONY: aws-acceptance
KEEP ?=
ONLY ?=
ACCEPTANCE = AWS="$(VENV)/bin/aws" BOOTSTRAP="$(TARGET_DIR)/bootstrap" ARTIFACTS="$(ARTIFACTS)" \
  STACK="$(if $(filter file,$(origin STACK)),vigia-acceptance,$(STACK))" N="$(N)" ARCH="$(ARCH)" \
  REGION="$(REGION)" ENDPOINT="$(ENDPOINT)" YES="$(YES)" KEEP="$(KEEP)" ONLY="$(ONLY)" $(WITH_TOOLS) bootstrap/acceptance/run.sh
aws-acceptance: venv ## Prove on an AWS account what only one can: a stack is made, broken, removed [REGION= ARCH= N= YES=1 KEEP=1 ONLY=]
	@$(if $(ENDPOINT),,bootstrap/preflight.sh "$(REGION)")
	@$(ACCEPTANCE) ask
	@$(MAKE) -s $(if $(ENDPOINT),build,deployer release-artifacts)
	@ASKED=1 $(ACCEPTANCE)

# --- Development ----------------------------------------------------------------------------------
# Those of the whole system wait for most of their time, so more run at a time than there are cores; the
# others, many of which hash passwords, would only hinder each other.
test: venv browser boot-tools second-judge build ## Run all tests; no AWS account needed
	@cargo test --workspace
	@$(MAKE) -s sim-fresh
	@RUST_TEST_THREADS=$${RUST_TEST_THREADS:-3} cargo test --workspace --test system

.PHONY: test-long
test-long: venv build ## Tests that take too long for make test: a release that does not start, errors that pass and that stay
	@cargo test --workspace --quiet --test system -- --ignored --nocapture healing:: propagation::

.PHONY: attacks
attacks: venv build ## What strangers did in a review, against a local stack: figures of others, about six minutes
	@cargo test --workspace --quiet --test system -- --ignored --nocapture --test-threads=1 attacks::

# Each cut point in a stack of its own, three at a time. The last line says how many were tried.
.PHONY: cuts
FROM ?=
TO ?=
cuts: venv build ## Cut deploy and destroy after each of their calls, run them again: about half an hour [FROM= TO=]
	@report="$$(mktemp)"; code=0; \
	VIGIA_CUTS_FROM="$(FROM)" VIGIA_CUTS_TO="$(TO)" VIGIA_CUTS_REPORT="$$report" \
	  cargo test --workspace --quiet --test system -- --ignored cuts:: --nocapture --test-threads=1 >&2 || code=1; \
	cat "$$report"; rm -f "$$report"; exit $$code

# The last line says how many deployments failed, and how many answers of AWS's first seconds one met.
.PHONY: consistency
consistency: venv build ## Deploy, deploy again and destroy over many seeds of AWS's eventual consistency [SEEDS=20 FIRST_SEED=]
	@report="$$(mktemp)"; code=0; \
	VIGIA_CONSISTENCY_SEEDS="$(or $(SEEDS),20)" VIGIA_CONSISTENCY_FIRST_SEED="$(FIRST_SEED)" VIGIA_CONSISTENCY_REPORT="$$report" \
	  cargo test --workspace --quiet --test system -- consistency:: --nocapture >&2 || code=1; \
	cat "$$report"; rm -f "$$report"; exit $$code

# Each of them in its full size: hours. `make test` runs the short forms.
.PHONY: test-full
test-full: test test-long attacks consistency sim-fresh sim sim-mutants cuts ## All tests in their full sizes: make test, test-long, attacks, consistency, sim-fresh, sim, sim-mutants, cuts

# The tool is not among the emulators' packages: it is large, and nothing else needs it.
CONTRACT := $(TOOLS)/contract
# A recipe that names MAKE itself is run by `make -n` as well.
HERE = $(MAKE) -s -C "$(CURDIR)"
contract: $(CONTRACT)/.installed ## The running local stack against its /openapi.json, by generated requests [SEED= CASES=]
	@cd ec2-worker/tests/contract && VIGIA_URL="$$($(HERE) local-url)" VIGIA_TOKEN="$$($(HERE) local-token)" \
	  SCHEMATHESIS_HOOKS=hooks PYTHONDONTWRITEBYTECODE=1 "$(abspath $(CONTRACT))/bin/schemathesis" --config-file schemathesis.toml \
	  run "$$($(HERE) local-url)/openapi.json" --workers 1 --max-examples "$(or $(CASES),50)" $(if $(SEED),--seed "$(SEED)")

$(CONTRACT)/.installed: ec2-worker/tests/contract/requirements.txt
	@echo "installing schemathesis into $(CONTRACT) (once, about a minute)" >&2
	@python3 -m venv --clear $(CONTRACT)
	@$(CONTRACT)/bin/pip install --quiet --disable-pip-version-check -r $< >&2
	@touch $@

sim: ## Simulate the reconciler under faults: make sim [SEEDS=10000 FIRST_SEED=1]
	@cargo build --profile sim -p sim --quiet
	@$(CARGO_TARGET)/sim/sim run $(SEED_FLAGS)

# The program of `make build` is as fast as that of `make sim`. Five hours have two storms and their calms.
# A seed that fails becomes a named test: `sim replay SEED --shrink` tells its story.
.PHONY: sim-fresh
sim-fresh: build ## Simulate 2,000 seeds that no run had before: about 40 s on two cores [SEEDS= FIRST_SEED=]
	@$(TARGET_DIR)/sim run --hours 5 --seeds $(or $(SEEDS),2000) --first-seed $(or $(FIRST_SEED),$$(date +%s%3N))

sim-latency: ## Simulate single faults: how long until each is noticed and mended
	@cargo build --profile sim -p sim --quiet
	@$(CARGO_TARGET)/sim/sim latency $(SEED_FLAGS)

# In a target directory of its own: each build would undo the other.
sim-mutants: ## Break one rule after the other; the simulator must notice [SEEDS= FIRST_SEED=]
	@cargo build --profile sim -p sim --quiet --features planted --target-dir $(CARGO_TARGET)/planted
	@$(CARGO_TARGET)/planted/sim/sim mutants $(SEED_FLAGS)

check: one-sdk ## Formatting, lints, documentation, dependencies, cycles of modules, prose
	@cargo fmt --all --check
	@cargo xtask prose >/dev/null
	@cargo xtask cycles >/dev/null
	@cargo clippy --workspace --all-targets --quiet -- -D warnings
	@cargo clippy --workspace --test system --test boot --quiet -- -D warnings
	@RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
	@if [ ! -x $(TOOLS)/bin/cargo-deny ]; then \
	  echo "installing cargo-deny into $(TOOLS) (once, some minutes)" >&2; \
	  cargo install --quiet --locked --version $(CARGO_DENY) --root $(TOOLS) cargo-deny; \
	fi
	@$(TOOLS)/bin/cargo-deny --locked --log-level error check bans licenses sources

# Programs and tests must have the same features below the AWS SDK, or it is compiled twice: five minutes.
.PHONY: one-sdk
SDK := aws-sdk-ec2|aws-sdk-s3|aws-sdk-lambda|aws-sdk-iam|aws-sdk-sts|aws-sdk-eventbridge|aws-sdk-cloudwatchlogs
FEATURES = cargo tree --locked --workspace --prefix none --format '{p} {f}' --edges
one-sdk:
	@below=$$(for crate in $(subst |, ,$(SDK)); do cargo tree --locked --package $$crate --edges normal --prefix none; done \
	  | cut -d' ' -f1,2 | sort -u); \
	differ=$$(comm -3 <($(FEATURES) normal | sed 's/ (\*)$$//' | sort -u) <($(FEATURES) normal,dev | sed 's/ (\*)$$//' | sort -u) \
	  | grep -wF "$$below" || true); \
	twice=$$(echo "$$differ" | sed 's/^\t//' | cut -d' ' -f1,2 | sort | uniq -d); \
	if [ -n "$$twice" ]; then \
	  echo "error: tests switch other features on than programs, so the AWS SDK is compiled twice:" >&2; \
	  echo "$$differ" | grep -wF "$$twice" | sed 's/^\t/  tests:    /; s/^[^ ]/  programs: &/' >&2; \
	  echo "  Name the features in the root's Cargo.toml for both." >&2; \
	  exit 1; \
	fi

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

# For AWS: release builds against the glibc of Amazon Linux 2023, linked by zig, which comes with
# cargo-lambda. The deployment checks processor and glibc once more, with or without objdump.
GLIBC := 2.34
TRIPLE = $(if $(filter arm64,$(or $(ARCH),$(shell uname -m | sed s/aarch64/arm64/))),aarch64,x86_64)-unknown-linux-gnu
PROGRAMS := ec2-lb ec2-worker reconciler
release-artifacts: venv ## Build the programs for AWS [ARCH=arm64 or x86_64]; minutes, and 8 GB, the first time
	@if [ ! -d "$$(rustc --print target-libdir --target $(TRIPLE))" ]; then \
	  echo "error: this Rust cannot build for $(TRIPLE): its standard library is not installed." >&2; \
	  echo "  Run \`rustup target add $(TRIPLE)\` and try again, or build for this machine's processor: ARCH=$$(uname -m | sed s/aarch64/arm64/)." >&2; \
	  exit 8; \
	fi
	@PATH="$(abspath $(VENV))/bin:$$PATH" cargo-lambda lambda build --release --locked --target $(TRIPLE).$(GLIBC) \
	  $(addprefix --package ,$(PROGRAMS))
	@mkdir -p $(RELEASE_DIR)
	@for program in $(PROGRAMS); do \
	  built=$(CARGO_TARGET)/lambda/$$program/bootstrap; \
	  if command -v objdump >/dev/null; then \
	    newest="$$( { LC_ALL=C objdump -T "$$built"; LC_ALL=C objdump -p "$$built"; } | grep -o 'GLIBC_[A-Z0-9_.]*' | sort -Vu | tail -n 1 || true)"; \
	    if [ "$$(printf '%s\n' "$${newest:-GLIBC_0}" GLIBC_$(GLIBC) | sort -V | tail -n 1)" != GLIBC_$(GLIBC) ]; then \
	      echo "error: $$built needs $$newest, and Amazon Linux 2023 has GLIBC_$(GLIBC)." >&2; \
	      echo "  Something was linked past zig: look for RUSTFLAGS and for a linker in .cargo/config.toml." >&2; \
	      exit 1; \
	    fi; \
	  fi; \
	  cmp -s "$$built" $(RELEASE_DIR)/$$program || cp "$$built" $(RELEASE_DIR)/$$program; \
	  echo "$(RELEASE_DIR)/$$program: $$(stat -c %s "$$built") bytes, $(TRIPLE), needs $${newest:-what objdump would tell}" >&2; \
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

# A second evaluator of IAM policies, in an environment of its own: of what it depends on, nothing is needed.
# Where it cannot be installed, the test says that it was not run.
.PHONY: second-judge
SECOND_JUDGE := $(TOOLS)/second-judge
second-judge: $(VENV)/.installed ## Install the second evaluator of IAM policies, which tests compare with the local cloud's
	@if [ ! $(SECOND_JUDGE)/.installed -nt bootstrap/tests/second_judge/requirements.txt ]; then \
	  echo "installing a second evaluator of IAM policies into $(SECOND_JUDGE) (once, some seconds)" >&2; \
	  { python3 -m venv --clear $(SECOND_JUDGE) && \
	    $(SECOND_JUDGE)/bin/pip install --quiet --disable-pip-version-check --no-deps \
	      -r bootstrap/tests/second_judge/requirements.txt && touch $(SECOND_JUDGE)/.installed; } >&2 \
	    || { rm -f $(SECOND_JUDGE)/.installed; \
	      echo "NOT RUN: the second evaluator cannot be installed; IAM is judged by the local cloud alone" >&2; }; \
	fi

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
