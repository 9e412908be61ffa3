# What a developer and CI run. `make` alone lists it.

SHELL := /usr/bin/env bash
.DEFAULT_GOAL := help

# tests/ needs no Postgres; integration/ does.
FAST_TESTS := --lib --bins $(patsubst tests/%.rs,--test %,$(wildcard tests/*.rs))

.PHONY: help setup check test soak gates bench demo demo-down

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: ## installs or finds what the tests need
	scripts/setup

check: ## the fast lane: format, lints, tests without Postgres, docs
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo test $(FAST_TESTS)
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps
	@if command -v cargo-deny >/dev/null; then cargo deny check; else echo "cargo-deny is not installed: skipped"; fi

test: ## everything, also against real Postgres
	scripts/test

soak: ## long forms: fuzzing, load, both Postgres versions; SEED=… SECONDS_MAX=…
	scripts/soak

gates: ## what a query costs in instructions and system calls, beside the last counts
	scripts/gates

bench: ## CPU per query beside direct Postgres and pgbouncer; idle clients
	scripts/bench

demo: ## two shards with replicas, the sample, the router and a tour; ONCE=1 cleans up
	scripts/demo $(if $(ONCE),--once)

demo-down: ## ends what `make demo` left up
	scripts/demo --down
