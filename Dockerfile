# The router alone: built in one stage, run in another without the toolchain.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /keyway
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/keyway/target \
    cargo build --release --locked --bin keyway && cp target/release/keyway /usr/local/bin/

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home keyway \
    && install -d -o keyway -g keyway /var/lib/keyway
COPY --from=build /usr/local/bin/keyway /usr/local/bin/keyway
# By number, so that a cluster sees that it is not root.
USER 10001
WORKDIR /var/lib/keyway
EXPOSE 6432 6433
STOPSIGNAL SIGTERM
ENTRYPOINT ["keyway"]
CMD ["serve", "--config", "/etc/keyway/keyway.toml"]
