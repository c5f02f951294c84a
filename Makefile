# The words a person types. `make` alone lists them.

.DEFAULT_GOAL := help
.PHONY: help demo test lint

help: ## this list
	@sed -n 's/^\([a-z]*\): .*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 8

demo: ## queue, sandbox, worker and a few requests in one process (ARGS=--spark: with Spark Connect)
	@agent/tests/prepare.sh build
	@echo "Building without optimization, for a quick start (some minutes the first time)."
	@cargo build --locked --bin sparkferry
	@cargo run --locked --quiet --bin sparkferry -- demo $(ARGS)

test: ## all tests, over a real RabbitMQ; brings what is missing
	@agent/tests/prepare.sh test
	@if cargo nextest --version >/dev/null 2>&1; then \
		cargo test --locked --workspace --doc && cargo nextest run --locked --workspace --no-fail-fast; \
	else \
		cargo test --locked --workspace --no-fail-fast; \
	fi

lint: ## format, clippy, documentation, licences and banned crates
	@agent/tests/prepare.sh lint
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet
	@deny=$$(agent/tests/prepare.sh --where cargo-deny) && echo "cargo deny check licenses bans sources" \
		&& "$$deny" check licenses bans sources
