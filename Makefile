# The words a person types. `make` alone lists them.

.DEFAULT_GOAL := help
.PHONY: help demo test soak fuzz lint bench release image deb sbom

help: ## this list
	@sed -n 's/^\([a-z]*\): .*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 8

demo: ## queue, sandbox, worker and a few requests in one process (ARGS=--spark: with Spark Connect)
	@agent/tests/prepare.sh build
	@echo "Building without optimization, for a quick start (some minutes the first time)."
	@cargo build --locked --bin sparkferry
	@cargo run --locked --quiet --bin sparkferry -- demo $(ARGS)

test: ## all tests, over a real RabbitMQ; brings what is missing (TEST_RABBITMQ: on other versions, too)
	@agent/tests/prepare.sh test
	@agent/tests/rabbitmq/stories.sh $(TEST_RABBITMQ)
	@if cargo nextest --version >/dev/null 2>&1; then \
		cargo test --locked --workspace --doc && cargo nextest run --locked --workspace --no-fail-fast; \
	else \
		cargo test --locked --workspace --no-fail-fast; \
	fi

soak: ## the promise under fire, for long (SOAK_SEED, SOAK_SEEDS, SOAK_REQUESTS, SOAK_QUEUES, ...)
	@agent/tests/prepare.sh soak
	cargo test --locked --profile soak --package sparkferry-agent --test it -- --ignored --exact --nocapture soak::as_long_as_it_is_told

lint: ## format, clippy, documentation, licences and banned crates
	@agent/tests/prepare.sh lint
	cargo fmt --all --check
	cargo fmt --manifest-path agent/fuzz/Cargo.toml --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet
	@deny=$$(agent/tests/prepare.sh --where cargo-deny) && echo "cargo deny check licenses bans sources" \
		&& "$$deny" check licenses bans sources

fuzz: export FUZZ_MESSAGES ?= 1000000
fuzz: export FUZZ_SEED ?= $(shell date +%s)
fuzz: FUZZ_SECONDS ?= 60
# Without a sanitizer, which would take a nightly toolchain: what is sought are panics, loops and gluttony.
fuzz: CARGO_FUZZ = cd agent && RUSTC_BOOTSTRAP=1 $$("$(CURDIR)/agent/tests/prepare.sh" --where cargo-fuzz)
fuzz: FUZZ_BUILD = --sanitizer none --target-dir ../target/fuzz
fuzz: ## a million messages, then libFuzzer at each door (FUZZ_MESSAGES=, FUZZ_SEED=, FUZZ_SECONDS=)
	@agent/tests/prepare.sh fuzz
	cargo test --locked --package sparkferry-agent --lib -- --nocapture whatever_stands_in_a_message
	$(CARGO_FUZZ) build $(FUZZ_BUILD)
	@for door in $$(ls agent/fuzz/seeds); do \
		echo "$$door, for $(FUZZ_SECONDS) s"; \
		mkdir -p target/fuzz/corpus/$$door; \
		($(CARGO_FUZZ) run $(FUZZ_BUILD) $$door ../target/fuzz/corpus/$$door fuzz/seeds/$$door -- \
			-max_total_time=$(FUZZ_SECONDS) -max_len=65536 -timeout=10 -rss_limit_mb=2048 \
			-print_final_stats=1) </dev/null || exit 1; \
	done

bench: ## the promises of speed and size, as ratios measured in one run (some minutes)
	@agent/tests/prepare.sh bench
	cargo bench --locked --package sparkferry-agent --bench promises

# The same sources make the same bytes, wherever they and what is built of them lie: no path of this
# machine and no clock goes into the program. (CFLAGS are for SQLite and ring, which are partly C.)
PATHS = $(CURDIR)=sparkferry $(or $(CARGO_HOME),$(HOME)/.cargo)=cargo \
	$(if $(CARGO_TARGET_DIR),$(abspath $(CARGO_TARGET_DIR))=sparkferry/target)
release deb sbom: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)

release: ## the program as it is shipped, target/release/sparkferry
	@agent/tests/prepare.sh build
	CARGO_INCREMENTAL=0 RUSTFLAGS="$(addprefix --remap-path-prefix=,$(PATHS))" \
		CFLAGS="$(addprefix -ffile-prefix-map=,$(PATHS))" cargo build --locked --release --bin sparkferry

deb: release ## a Debian package of it, with systemd units, in target/debian/
	@agent/tests/prepare.sh package
	@$$(agent/tests/prepare.sh --where cargo-deb) --package sparkferry-agent --locked --no-build

sbom: ## what the program is made of, as CycloneDX, target/sparkferry.cdx.json
	@agent/tests/prepare.sh package
	@$$(agent/tests/prepare.sh --where cargo-cyclonedx) cyclonedx --manifest-path agent/Cargo.toml --quiet \
		--format json --spec-version 1.5 --describe binaries
	@mkdir -p target && sed 's,path+file://$(CURDIR)/,,' agent/sparkferry_bin.cdx.json > target/sparkferry.cdx.json
	@rm agent/sparkferry_bin.cdx.json
	@echo target/sparkferry.cdx.json

# (podman and buildah leave the health check out of images in their own format.)
image: ## the container image `sparkferry`, by docker or podman
	@engine=$$(command -v docker || command -v podman || command -v buildah) \
		|| { echo "make image: none of docker, podman and buildah is here" >&2; exit 69; }; \
	case $$engine in *docker) ;; *) format="--format docker" ;; esac; \
	"$$engine" build $$format --file docker/Dockerfile --tag sparkferry \
		--build-arg COMMIT="$$(git rev-parse HEAD 2>/dev/null || echo unknown)" \
		--build-arg SOURCE_DATE_EPOCH="$$(git log -1 --format=%ct 2>/dev/null)" .
