# Container image of rosterd: the binary and the system's certificates.
#
#   docker build --build-arg REVISION="$(git rev-parse --short=12 HEAD)" --tag rosterd .
#   docker run --env DATABASE_URL --env HARVEST_ACCOUNT_ID --env HARVEST_ACCESS_TOKEN --publish 8080:8080 rosterd
#
# When you publish the image, add these labels, which would make builds differ:
#   --label org.opencontainers.image.source=… --label org.opencontainers.image.created="$(date -u +%FT%TZ)"

# The version in rust-toolchain.toml.
ARG RUST_VERSION=1.95.0

FROM rust:${RUST_VERSION}-slim-bookworm AS build
WORKDIR /build
# Build without a database: the metadata of queries is in .sqlx.
ENV SQLX_OFFLINE=true

# Build the dependencies in a separate layer, which is cached until the manifests change. Empty files replace rosterd's
# sources. Unlike cache mounts and cargo-chef, this needs no BuildKit and no other tool.
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
# The revision for `rosterd --version`, because .git is not in the build context.
ARG REVISION=unknown
# Copied files keep their modification times, which may be older than the empty files: let cargo see the change.
RUN touch build.rs src/lib.rs src/main.rs \
    && ROSTERD_REVISION="${REVISION}" cargo build --release --locked --package rosterd --bin rosterd

# No shell and no package manager; only glibc and the certificate authorities that rustls reads. To use another
# authority, mount its file and set SSL_CERT_FILE.
FROM gcr.io/distroless/cc-debian12:nonroot
# The version in Cargo.toml.
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="rosterd" \
      org.opencontainers.image.description="PostgreSQL mirror of the users and project teams of Harvest accounts" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /build/target/release/rosterd /usr/local/bin/rosterd

# A number, so that Kubernetes can verify that it is not root.
USER 65532:65532

# The default, 127.0.0.1, cannot be reached from outside the container. `docker run --publish` decides who can reach it.
ENV ROSTERD__HTTP__LISTEN=0.0.0.0:8080
EXPOSE 8080

# Whether the workers make progress. It does not check Harvest or the database, which a restart cannot fix.
HEALTHCHECK --interval=30s --timeout=5s --start-period=90s --retries=3 CMD ["rosterd", "health"]

ENTRYPOINT ["rosterd"]
CMD ["run"]
