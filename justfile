# The daily commands; `just` alone lists them. CONTRIBUTING.md names the plain cargo command behind each.

# Arguments arrive as they were typed, quotes included.
set positional-arguments

# These commands
default:
    @just --list

# The daemon; settings as always, for example HARVEST_ACCOUNT_ID and HARVEST_ACCESS_TOKEN
run *arguments:
    cargo run -- run "$@"

# A small company's working day, with everything real but Harvest
demo *arguments:
    cargo run --release --example demo -- "$@"

# Harvest on this machine: prints address, token and account
sim *arguments:
    cargo run -p harvest-sim -- "$@"

# All tests; they find or make a PostgreSQL by themselves
test *arguments:
    cargo test --workspace --locked "$@"

# What a reviewer would not want to say
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings

# Puts every file into shape
fmt:
    cargo fmt --all

# Makes .sqlx/ anew, after a change of a query or a migration
prepare:
    .ci/sqlx prepare

# psql on rosterd's database
db *arguments:
    cargo run -- psql -- "$@"

# What the program is made of, as CycloneDX in rosterd_bin.cdx.json (cargo install --locked cargo-cyclonedx)
sbom:
    cargo cyclonedx --format json --spec-version 1.5 --describe binaries --no-build-deps --target x86_64-unknown-linux-gnu

# All that must hold before a change goes in
ci:
    .ci/run
