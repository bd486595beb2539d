# Two commands for newcomers: `make demo` and `make test`. See CONTRIBUTING.md for the rest.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: demo test lint bench build dist fuzz simulate kill schema openapi fuzz-api help soak

# Outside the clone, so that the next clone reuses what is built.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/backstop/target
export CARGO_TERM_COLOR ?= auto

BACKSTOP := $(CARGO_TARGET_DIR)/release/backstop

help:
	@echo 'make demo      build, and run the example batches on embedded SQLite'
	@echo 'make test      install and start the servers the tests need, run every test'
	@echo 'make lint      format, clippy, dependency rules, documentation'
	@echo 'make dist      the binary to package, optimized as a whole ($$CARGO_TARGET_DIR/dist/backstop)'
	@echo 'make bench     measure against psql and pgbench'
	@echo 'make simulate  the long simulator run: single runs and whole services (BACKSTOP_SEEDS=100000)'
	@echo 'make kill      the long kill -9 run (BACKSTOP_KILLS=500)'
	@echo 'make fuzz-api  thousands of questions to the API, held against its OpenAPI document'
	@echo 'make openapi   write docs/openapi.json anew'
	@echo 'make soak      the service under kill -9 with 200 runs going on (BACKSTOP_KILLS=1000)'
	@echo 'make fuzz      ten minutes of fuzzing of the script splitter'

build:
	@scripts/setup build
	cargo build --release --locked -p backstop-cli

demo: build
	@scripts/setup demo
	@scripts/demo $(BACKSTOP)

test:
	@scripts/setup build test fuzz-api
	@scripts/test

lint:
	@scripts/setup build
	@scripts/lint

# The binary as it is packaged: linked as one, which takes three times as long to build.
dist:
	@scripts/setup build
	cargo build --profile dist --locked -p backstop-cli

bench: dist
	@scripts/setup test bench
	@bench/run $(CARGO_TARGET_DIR)/dist/backstop

simulate:
	BACKSTOP_SEEDS=$${BACKSTOP_SEEDS:-100000} cargo test --locked -p backstop-runtime --test simulation -- --nocapture

kill:
	@scripts/setup build test
	BACKSTOP_KILLS=$${BACKSTOP_KILLS:-500} cargo test --locked -p backstop-cli --test kill -- --nocapture

soak:
	@scripts/setup build test
	BACKSTOP_KILLS=$${BACKSTOP_KILLS:-1000} BACKSTOP_FAULTS=$${BACKSTOP_FAULTS:-300} BACKSTOP_DISK_FAULTS=$${BACKSTOP_DISK_FAULTS:-100} \
	$$([ "$$(id -u)" = 0 ] && unshare -m true 2>/dev/null && echo unshare -m) cargo test --locked -p backstop-cli --test soak -- --nocapture --test-threads 1

fuzz:
	BACKSTOP_FUZZ_SECONDS=$${BACKSTOP_FUZZ_SECONDS:-600} cargo test --locked -p backstop-connect --test script_fuzz -- --nocapture

# Asks a real service thousands of questions made from its OpenAPI document. BACKSTOP_FUZZ_SECONDS and BACKSTOP_FUZZ_SEED steer it.
fuzz-api: build
	@scripts/setup demo fuzz-api
	@scripts/fuzz-api $(BACKSTOP) --seconds $${BACKSTOP_FUZZ_SECONDS:-300} --examples 200

openapi:
	BACKSTOP_UPDATE_OPENAPI=1 cargo test --locked -p backstop-server openapi

schema:
	BACKSTOP_UPDATE_SCHEMA=1 cargo test --locked -p backstop-project schema
