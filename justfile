# Development commands; `just` lists them. CONTRIBUTING.md has the plain cargo command for each.

# Passes arguments unchanged, with their quotes.
set positional-arguments

# List the commands
default:
    @just --list

# Run the daemon with your settings, for example HARVEST_ACCOUNT_ID and HARVEST_ACCESS_TOKEN
run *arguments:
    cargo run -- run "$@"

# Run the demo: a small company's day with a simulated Harvest
demo *arguments:
    cargo run --release --example demo -- "$@"

# Run the simulated Harvest; prints address, token and account
sim *arguments:
    cargo run -p harvest-sim -- "$@"

# Run all tests; they find or start a PostgreSQL
test *arguments:
    cargo test --workspace --locked "$@"

# Run the tests that take minutes: more seeds, injected faults, the image
campaigns *arguments:
    cargo test --locked --test campaigns "$@"

# Check format and lints
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    cargo clippy --locked --test campaigns -- -D warnings
    cargo clippy --workspace --locked -- -D warnings

# Format all files
fmt:
    cargo fmt --all

# Write .sqlx/ again, after a change of a query or a migration
prepare:
    .ci/sqlx prepare

# Render the documentation into target/book (cargo install mdbook --locked)
book:
    .ci/book

# Open psql on rosterd's database
db *arguments:
    cargo run -- psql -- "$@"

# Write a CycloneDX bill of materials to rosterd_bin.cdx.json (cargo install --locked cargo-cyclonedx)
sbom:
    cargo cyclonedx --format json --spec-version 1.5 --describe binaries --no-build-deps --target x86_64-unknown-linux-gnu

# Run all checks that a change must pass
ci:
    .ci/run
