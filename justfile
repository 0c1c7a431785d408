# Run these with ./justw, which gets what they need: ./justw demo

set positional-arguments
set shell := ["bash", "-euo", "pipefail", "-c"]

# `--bin` without `--package` keeps the features of the whole workspace, so that no recipe rebuilds what another built.

[private]
default:
    @"{{ just_executable() }}" --justfile "{{ justfile() }}" --list --unsorted

# Watch a crew at work on real parts, killed twice in the middle (--stay keeps it up)
demo *ARGS:
    cargo build --bin nightcrew --bin demo
    @tests/tools/with nats-server synapse bubblewrap -- tests/tools/run-copy debug demo nightcrew -- "$@"

# Run check, then all tests against real servers (ARGS go to cargo nextest: a filter, --no-capture)
test *ARGS: check
    cargo build --workspace --all-targets
    cargo test --quiet --workspace --doc
    @tests/tools/with nextest nats-server synapse bubblewrap -- cargo nextest run --workspace "$@"

# Check formats, dependencies, lints and documentation
check:
    cargo fmt --all --check
    @tests/tools/with deny -- cargo deny --log-level error check --hide-inclusion-graph licenses bans sources
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --quiet --workspace --no-deps --document-private-items

# Measure speed and size: bench [step wake burst resume up matrix] [--json] (matrix only when it is named)
bench *ARGS:
    cargo build --release --bin nightcrew --bin bench
    @tests/tools/with nats-server synapse bubblewrap -- "$CARGO_TARGET_DIR/release/bench" "$@"

# Start Nightcrew in this terminal, every service in one process (ARGS go to `nightcrew up`)
up *ARGS:
    cargo build --release --bin nightcrew
    @tests/tools/with nats-server bubblewrap -- tests/tools/run-copy release nightcrew -- up "$@"

# Put `nightcrew` beside cargo, and nats-server where there is none, for other terminals and projects of your own
install:
    cargo build --release --bin nightcrew
    @tests/tools/with nats-server bubblewrap -- tests/tools/install "${CARGO_HOME:-$HOME/.cargo}/bin"

# Remove all that ./justw keeps for every clone: tools, cargo's target folder, copies of binaries
clean:
    @tests/tools/clean
