# rosterd in an image: the binary, the system's certificates, and nothing else.
#
#   docker build --build-arg REVISION="$(git rev-parse --short=12 HEAD)" --tag rosterd .
#   docker run --env DATABASE_URL --env HARVEST_ACCOUNT_ID --env HARVEST_ACCESS_TOKEN --publish 8080:8080 rosterd
#
# Who publishes it adds what only they know, and what would make every build another one:
#   --label org.opencontainers.image.source=… --label org.opencontainers.image.created="$(date -u +%FT%TZ)"

# That of rust-toolchain.toml.
ARG RUST_VERSION=1.95.0

FROM rust:${RUST_VERSION}-slim-bookworm AS build
WORKDIR /build
# Nobody's database is asked while building: the queries were checked before they came here.
ENV SQLX_OFFLINE=true

# The dependencies, in a layer of their own: as long as the manifests stay the same it is taken from the cache.
# Empty sources stand in for ours, wherever the manifests want one. This needs no BuildKit and no tool from the network,
# unlike cache mounts and cargo-chef.
COPY Cargo.toml Cargo.lock ./
COPY tests/harvest-sim/Cargo.toml tests/harvest-sim/
RUN for target in build.rs src/lib.rs examples/demo.rs tests/harvest-sim/src/main.rs tests/harvest-sim/src/lib.rs \
        $(sed -n 's/^path = "\(.*\.rs\)"$/\1/p' Cargo.toml); do \
        mkdir -p "$(dirname "$target")" && echo 'fn main() {}' > "$target"; \
    done \
    && cargo build --release --locked --package rosterd --bin rosterd

COPY build.rs ./
COPY .sqlx .sqlx
COPY config config
COPY migrations migrations
COPY src src
# What `rosterd --version` says; there is no .git here to ask.
ARG REVISION=unknown
# Copied files keep their times, which may be older than those of the stand-ins: cargo must see that they changed.
RUN touch build.rs src/lib.rs src/main.rs \
    && ROSTERD_REVISION="${REVISION}" cargo build --release --locked --package rosterd --bin rosterd

# No shell, no package manager; glibc and the certificate authorities that rustls reads. An authority of one's own
# is mounted and named in SSL_CERT_FILE.
FROM gcr.io/distroless/cc-debian12:nonroot
# That of Cargo.toml.
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="rosterd" \
      org.opencontainers.image.description="Keeps a PostgreSQL mirror of the people and project teams of Harvest accounts" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /build/target/release/rosterd /usr/local/bin/rosterd

# By number, so that Kubernetes can tell that it is not root.
USER 65532:65532

# The default, 127.0.0.1, is reachable by nobody outside the container. Which of these ports is published, and to
# whom, is decided where the container is run.
ENV ROSTERD__HTTP__LISTEN=0.0.0.0:8080
EXPOSE 8080

# Whether the daemon turns, not whether Harvest or the database do: restarting would mend neither.
HEALTHCHECK --interval=30s --timeout=5s --start-period=90s --retries=3 CMD ["rosterd", "health"]

ENTRYPOINT ["rosterd"]
CMD ["run"]
