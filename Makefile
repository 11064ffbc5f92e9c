# One verb per habit, the same for CI and for you: `make help`.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
FUZZ_SECONDS ?= 60
SOAK_SECONDS ?= 1800
SOAK_ROWS ?= 10000000
# Processes that share the tests of Python among them; most tests wait, so there are more than a small machine has cores.
WORKERS ?= 4
# Each process takes one file after the other, in the order that tests/conftest.py puts them in.
SHARED = -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# What a channel is held to, whoever speaks the protocol. For the libraries one form of each verb is enough, and what is
# sent again and what runs out of time is no other with TLS.
CONTRACT = $(addprefix tests/faults/test_,access.py cancellation.py deadlines.py retries.py same_errors.py) \
           -k "not async and not at_random_points and not many_restarts and \
               not ((test_retries or test_deadlines) and (grpcs or https or websockets))"
PYTHONS ?= $(PYTHON)
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Hundreds of tests start a Python of their own, which would compile casdk's files each time where this is set.
unexport PYTHONDONTWRITEBYTECODE
# The matrices of the tests are small, and NumPy's other threads would wait for the next one in busy loops.
test soak coverage interop ecosystem: export OPENBLAS_NUM_THREADS := 1

# Stamps are named after what they were made from, so that a change makes them again and nothing else does.
hash = $(shell cat $(1) 2>/dev/null | cksum | tr ' ' -)
RUST := $(shell find rust Cargo.toml Cargo.lock -name fuzz -prune -o -name target -prune -o \
          \( -name '*.rs' -o -name 'Cargo.*' \) -print 2>/dev/null | sort)
MADE := $(VENV)/.made-1
BUILT := $(VENV)/.built-$(call hash,pyproject.toml $(RUST))
READY := $(VENV)/.ready-$(call hash,pyproject.toml)

say = @printf '==> %s\n'

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Set up

.PHONY: setup build
setup: $(BUILT) $(READY) ## Make .venv with the extension and every tool in it
build: $(BUILT) ## Build the release extension into .venv

.PHONY: check-tools
check-tools:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "casdk needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) -V 2>/dev/null || echo missing): name another with make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "casdk needs Python's venv module, and '$(PYTHON)' has none: install python3-venv" >&2; exit 1; }
	@found=$$(cargo --version 2>/dev/null | cut -d ' ' -f 2 || true); \
	  [ -n "$$found" ] && [ "$$(printf '%s\n' 1.85 "$$found" | sort -V | head -n 1)" = 1.85 ] || { \
	  echo "casdk needs cargo 1.85 or newer, and here it is $${found:-missing}: get it from https://rustup.rs" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "casdk needs a C linker, and there is no 'cc': install gcc" >&2; exit 1; }

$(MADE): | check-tools
	$(say) "making $(VENV) with $$($(PYTHON) -V)"
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@# --group came with pip 25.1
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1' 'maturin>=1.16,<2'
	@touch $@

$(BUILT): $(MADE) | check-tools
	$(say) "building the extension (a first build takes about a minute)"
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/maturin develop --release --extras image,server
	@rm -f $(VENV)/.built-* && touch $@

ifeq ($(wildcard python/casdk/_rust*.so),)
.PHONY: $(BUILT)
endif

# After the extension: the group asks for casdk's own extras, and casdk itself must come from here.
$(READY): | $(BUILT)
	$(say) "installing the tools for tests and checks"
	@$(BIN)/python -m pip install --quiet --group all
	@rm -f $(VENV)/.ready-* && touch $@

# Try

.PHONY: demo
demo: $(BUILT) ## Encode a mixed list over all six schemes against the embedded server
	$(say) "running examples/demo.py"
	@$(BIN)/python examples/demo.py

# Check

.PHONY: test test-rust
test: $(READY) ## Lint, and run the tests of Rust and Python
	@# Two at a time, since type checkers use one core; what one prints is shown when it is over, and so in one piece
	@$(MAKE) --no-print-directory --output-sync=target -j 2 lint-pyright lint-python test-rust
	$(say) "testing Python"
	@$(BIN)/python -m pytest $(SHARED) -m 'not soak and not alone and not twin'
	$(say) "testing what measures time, one test after the other"
	@$(BIN)/python -m pytest -m 'alone and not soak' $$(grep -rl --include='*.py' pytest.mark.alone tests)

test-rust: lint-rust
	$(say) "testing Rust"
	@cargo test --workspace --locked --quiet

# A stable compiler from rustup counts lines, too, with a component of its own.
COVERED := .cache/cargo-llvm-cov/bin/cargo-llvm-cov
$(COVERED): | check-tools
	$(say) "building cargo-llvm-cov (about a minute)"
	@rustup component add llvm-tools
	@cargo install --quiet --locked --root $(dir $(COVERED)).. cargo-llvm-cov

# Without tests/faults, which kill the processes that they look at; pyproject.toml has the floor for Python.
.PHONY: coverage
coverage: $(READY) $(COVERED) ## Count the lines and branches that the tests of the parts run, and fail below the floor
	$(say) "counting what the tests of Rust run"
	@PATH="$(CURDIR)/$(dir $(COVERED)):$$PATH" cargo llvm-cov --package casdk-core --locked --quiet --summary-only --fail-under-lines 95
	$(say) "counting what the tests of Python run"
	@rm -rf .cache/coverage && mkdir -p .cache/coverage
	@$(BIN)/python -m coverage run -m pytest $(SHARED) --ignore=tests/faults
	@$(BIN)/python -m coverage combine --quiet
	@$(BIN)/python -m coverage report --skip-covered

.PHONY: lint lint-python lint-pyright lint-rust
lint: lint-python lint-pyright lint-rust ## Check format, lints, types and stubs of Python and Rust, and the workflows

lint-python: $(READY)
	$(say) "checking Python"
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/ruff check --quiet
	@$(BIN)/mypy
	@$(BIN)/stubtest casdk._rust --mypy-config-file pyproject.toml --allowlist tests/typing/stubtest-allowlist.txt
	@$(BIN)/zizmor --offline --quiet .github

lint-pyright: $(READY)
	$(say) "checking Python's types by another checker"
	@$(BIN)/pyright
	@$(BIN)/python tests/typing/complete.py $(BIN)/pyright $(VENV) $(addprefix casdk.interop.,langchain.ClipEmbeddings llamaindex.ClipEmbedding)

lint-rust: check-tools
	$(say) "checking Rust"
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets --locked --quiet -- -D warnings

.PHONY: format
format: $(READY) ## Format and mend what can be mended
	@$(BIN)/ruff check --fix --quiet || true
	@$(BIN)/ruff format
	@cargo fmt --all

# Tests that wait for minutes, for a ping that must not come or for a server to start, and need little of a core.
WAITING := $(addprefix tests/faults/test_,connections.py pace.py restarts.py)

.PHONY: soak soak-waiting soak-working soak-twins soak-libraries
soak: $(READY) ## Mixed traffic with faults for SOAK_SECONDS (1800), what takes minutes, tests over more schemes, and the libraries
	$(say) "soaking for $(SOAK_SECONDS) s"
	@$(MAKE) --no-print-directory --output-sync=target -j 2 soak-waiting soak-working soak-twins soak-libraries

# pytest keeps every record logged, and with it each failed request: that would be what grows. So no soak test has `caplog`.
soak-waiting:
	@$(BIN)/python -m pytest -m soak $(WAITING) -p no:logging -n 2 --dist loadfile

soak-working:
	@SOAK_SECONDS=$(SOAK_SECONDS) $(BIN)/python -m pytest -m soak $(addprefix --ignore=,$(WAITING)) -p no:logging -n 3 --dist worksteal

# Tests that `make test` runs over other schemes: each over one of the secure schemes, and with TWINS=all over all three.
TWINS ?= one
soak-twins:
	@$(BIN)/python -m pytest $(SHARED) -m 'twin and not soak $(if $(filter all,$(TWINS)),,and not further_twin)'

# The channels of transport="libraries", which are held to what ours are held to.
soak-libraries:
	@CASDK_TESTED_TRANSPORT=libraries $(BIN)/python -m pytest $(SHARED) $(CONTRACT)

.PHONY: soak-bulk
soak-bulk: $(READY) ## A bulk run of SOAK_ROWS (10,000,000) that is killed again and again, held to an undisturbed one
	$(say) "encoding $(SOAK_ROWS) rows twice, once with kills"
	@$(BIN)/python tests/bulk/soak.py $(SOAK_ROWS)

.PHONY: interop
interop: $(READY) ## Run against real jina servers, in environments of their own, and through or against nginx, tonic and uvicorn
	$(say) "testing against real servers"
	@$(BIN)/python tests/interop/run.py

.PHONY: ecosystem
ecosystem: $(READY) ## Run against torch, datasets, langchain, llamaindex, dask, ray, spark, lance, uvloop and uWSGI, each in a venv of its own
	$(say) "testing with other people's libraries (a first run builds 4 GB of environments in about 4 minutes)"
	@CASDK_ECOSYSTEM=1 $(BIN)/python -m pytest tests/ecosystem -n 2 --dist worksteal

FUZZER := .cache/cargo-fuzz/bin/cargo-fuzz
$(FUZZER): | check-tools
	$(say) "building cargo-fuzz (about a minute)"
	@cargo install --quiet --locked --root $(dir $(FUZZER)).. cargo-fuzz

# A stable compiler from rustup has the sanitizers, too; RUSTC_BOOTSTRAP lets it use them.
.PHONY: fuzz
fuzz: export RUSTC_BOOTSTRAP := 1
fuzz: $(FUZZER) ## Fuzz each target for FUZZ_SECONDS (60)
	@command -v c++ >/dev/null || { echo "make fuzz needs a C++ compiler, and there is no 'c++': install g++" >&2; exit 1; }
	@cd rust/core && for target in $$($(CURDIR)/$(FUZZER) list); do \
	  echo "==> fuzzing $$target for $(FUZZ_SECONDS) s"; \
	  $(CURDIR)/$(FUZZER) run "$$target" -- -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1; \
	done

.PHONY: bench
bench: $(READY) ## Measure casdk, the original client, a bare stub and the floor in one run
	$(say) "measuring"
	@$(BIN)/python -m pip install --quiet --group bench
	@$(BIN)/python -m pytest -c benches/pytest.ini benches

.PHONY: bench-images
bench-images: $(READY) ## Measure what crops gain through links of 100 Mbit/s and 1 Gbit/s, and from where on they do not
	$(say) "measuring crops (about 8 minutes)"
	@$(BIN)/python benches/exact.py

.PHONY: docs
docs: $(READY) ## Build the pages into site/, without a warning
	$(say) "building site/"
	@$(BIN)/python -m pip install --quiet --group docs
	@$(BIN)/zensical build --clean --strict

# Ship

.PHONY: dist
dist: $(MADE) ## Build dist/: an sdist and the wheel for every Python from 3.11 (manylinux2014 on Linux)
	$(say) "building dist/"
	@$(BIN)/python -m pip install --quiet --group dist
	@rm -rf dist && mkdir dist
	@$(BIN)/maturin sdist --out dist
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/maturin build --release --out dist $(if $(filter Linux,$(shell uname -s)),--zig --compatibility manylinux2014)

.PHONY: dist-check
dist-check: dist $(READY) ## Install dist/ as users do, on each of PYTHONS (python3 python3.15 ...), and run it
	$(say) "checking dist/"
	@$(BIN)/python tests/packaging/check.py --dist dist --pyright $(BIN)/pyright $(PYTHONS)

# Leave

.PHONY: clean
clean: ## Remove what was built: .venv, target, caches
	rm -rf $(VENV) target dist site python/casdk/_rust*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
