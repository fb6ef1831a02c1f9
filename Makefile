# Thin: each line is a command a person could type. Needs Linux, root, a Rust toolchain; installs the rest with apt-get.
.PHONY: help demo demo-swarm test properties sim fuzz test-vm lint images tools bench fast

CARGO ?= cargo
IMAGES := .cache/images
FUZZ_SECONDS ?= 60
# Property tests draw the same cases each time, so that what passed passes again; make properties draws others.
SEED ?= 1
CASES ?= 5000
MUSTER := target/fast/muster
# nextest runs all packages' tests at once; without it cargo's own runner does, one package after the other.
TEST_RUNNER := $(if $(shell $(CARGO) nextest --version 2>/dev/null),nextest run,test --lib --bins --tests)

help:            ## show this list
	@grep -E '^[a-z-]+: .*##' Makefile | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/'

demo: tools images fast ## build muster and bring examples/hello up with it
	MUSTER=$(MUSTER) IMAGES=$(IMAGES) examples/demo

demo-swarm: tools images fast ## five hosts on this machine as one swarm: a stack, failures, a rollout under load
	MUSTER=$(MUSTER) IMAGES=$(IMAGES) examples/demo-swarm

test: tools images ## everything: unit, integration and end-to-end tests
	$(CARGO) build --locked -p cli
	PROPTEST_RNG_SEED=$(SEED) MUSTER_TEST_IMAGES=$(CURDIR)/$(IMAGES) $(CARGO) $(TEST_RUNNER) --workspace --locked
	$(CARGO) test --doc --workspace --locked --quiet

properties:      ## the packages' tests again, CASES drawn anew for each property
	PROPTEST_CASES=$(CASES) $(CARGO) test --workspace --exclude e2e --locked --lib --tests

sim:             ## simulated swarms without end; SIM_SEED and SIM_STEPS repeat one
	$(CARGO) test --profile fast --locked -p cluster --test it -- --ignored --nocapture sim::endless

fuzz:            ## libFuzzer on every parser of foreign input, FUZZ_SECONDS each (needs `cargo install cargo-fuzz`), see fuzz/src/lib.rs
	for target in $$(ls fuzz/seeds); do \
		TMPDIR=/dev/shm $(CARGO) fuzz run --fuzz-dir fuzz --sanitizer none $$target -- fuzz/corpus/$$target fuzz/seeds/$$target -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

test-vm: tools fast ## cgroup v2 and older kernels in a virtual machine, see e2e/vm/README.md
	e2e/vm/run $(ARGS)

lint:            ## formatting, clippy and rustdoc, warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked --quiet

bench: tools images fast ## ratios to the peers that can be reached, see e2e/bench/README.md
	MUSTER=$(CURDIR)/$(MUSTER) MUSTER_TEST_IMAGES=$(CURDIR)/$(IMAGES) $(CARGO) run --profile fast --locked -p e2e --bin bench -- $(ARGS)

images:          ## root file systems of the test and demo images, from Debian's packages
	e2e/images/build $(IMAGES)

fast:            ## an optimised executable that links quickly
	$(CARGO) build --profile fast --locked -p cli

tools:           ## what the targets above need and the machine lacks
	e2e/images/tools
