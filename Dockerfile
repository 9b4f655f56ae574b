# The binary of an instance, on Debian slim. What is needed to build it is what
# scripts/setup installs; the Rust release is that of rust-toolchain.toml, which stays
# outside because rustup would fetch the linters that it names.

FROM rust:1.95.0-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends \
        build-essential pkg-config libclang-dev libssl-dev zlib1g-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY state state
COPY topology topology
COPY query-api query-api
COPY bench bench
# What /metrics shows as the revision: --build-arg TICKETING_REVISION=$(git rev-parse HEAD)
ARG TICKETING_REVISION=unknown
# RocksDB and librdkafka are compiled once and then taken from the caches. The profile tells the
# compiler how often each branch is taken (docs/adr/0023).
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/build/target \
    gunzip <bench/dist.profdata.gz >/tmp/dist.profdata \
    && RUSTFLAGS=-Cprofile-use=/tmp/dist.profdata TICKETING_REVISION=$TICKETING_REVISION \
        cargo build --profile dist --locked --bin ticketing \
    && install -D target/dist/ticketing /out/ticketing

FROM debian:bookworm-slim
# The libraries that the binary is linked with, and curl for the health check.
RUN apt-get update && apt-get install -y --no-install-recommends \
        ca-certificates curl libssl3 libstdc++6 zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --home-dir /var/lib/ticketing --shell /usr/sbin/nologin ticketing \
    && install -d -o ticketing -g ticketing -m 0750 /var/lib/ticketing
COPY --from=build /out/ticketing /usr/local/bin/ticketing
USER 10001:10001
# ADVERTISED_ADDR has to be set: 0.0.0.0 is where to listen, not where to be reached.
ENV HTTP_ADDR=0.0.0.0:8080 STATE_DIR=/var/lib/ticketing
VOLUME /var/lib/ticketing
EXPOSE 8080
STOPSIGNAL SIGTERM
# Healthy is ready: every task that it owns runs. Restoring from scratch takes its time.
HEALTHCHECK --interval=5s --timeout=3s --start-period=10m --retries=3 \
    CMD ["curl", "-fsS", "-o", "/dev/null", "http://127.0.0.1:8080/health/ready"]
ENTRYPOINT ["ticketing"]
