# Make alone lists the targets. CI runs the same recipes.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

# The versions of Asterisk that real calls go through.
ASTERISK := 16 22

.PHONY: help demo check quick test torture fuzz bench snapshots

help: ## lists the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

demo: ## builds and runs the main job on a made-up company
	cargo run --release -- demo

check: ## formatting, lints, docs, dependencies: before each commit
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items
	if cargo deny --version >/dev/null 2>&1; then cargo deny check bans licenses sources; else echo "left out: cargo deny is not installed"; fi

quick: ## unit and integration tests without servers, big bases and long lives
	cargo test -- --skip big_base --skip life:: --skip freshness

test: ## everything, with the servers that the tests need; installs them
	tests/install test
	$(MAKE) check
	PRYAMO_TEST_ASTERISK="$(ASTERISK)" cargo test -- --skip big_base --skip life:: --skip freshness
	# Two at a time: a life is made of daemons that die, and keeps limits a second too.
	cargo test --test it life:: -- --test-threads 2 --nocapture
	# One after another: limits a second are measured, and the machine may be small.
	cargo test --test it big_base -- --test-threads 1 --nocapture
	cargo test --test it freshness -- --nocapture
	target/phonenumbers/bin/python tests/phones/generate.py --check

torture: ## the long forms of what `make test` does shortly: hours
	PRYAMO_TEST_CHANGES=50000 cargo test --test it life:: -- --test-threads 2 --nocapture
	PRYAMO_TEST_SOAK=60 cargo test --test it soak:: -- --nocapture
	PRYAMO_TEST_TIMES=4 cargo test --test it big_base::a_big -- --test-threads 1 --nocapture
	# Only root may give systemd namespaces of its own.
	cargo build --release
	tests/systemd

fuzz: ## sends every reader what a fuzzer thinks of, 15 minutes each: hours
	fuzz/run 900

bench: ## measures /forward beside nginx, the directory and the page; see docs/performance.md
	tests/install bench
	cargo bench

snapshots: ## regenerates the example configuration and the explained calls, shows the difference
	cargo run -- config --example > target/pryamo.example.toml
	mv target/pryamo.example.toml pryamo.example.toml
	PRYAMO_TEST_SNAPSHOTS=1 cargo test --test it explain::
	PRYAMO_TEST_SNAPSHOTS=1 cargo test --test it check::
	git --no-pager diff --stat -- pryamo.example.toml docs/explain.md docs/explain.ru.md docs/check.md
