# A static binary in an empty image. No build arguments; works on x86-64 and ARM hosts alike, because the target is
# whatever the builder's own compiler says. (crt-static needs an explicit --target, else it would break proc macros.)
FROM rust:1.95-bookworm AS build
WORKDIR /src
ENV RUSTFLAGS="-C target-feature=+crt-static" \
    CARGO_PROFILE_RELEASE_DEBUG=0 \
    CARGO_PROFILE_RELEASE_STRIP=symbols

# The dependencies alone, so that a change of our sources does not build them again.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src \
    && echo 'fn main() {}' > build.rs \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs \
    && cargo build --release --locked --target "$(rustc -vV | sed -n 's/^host: //p')" \
    && rm -r build.rs src

COPY . .
# Cargo goes by time stamps: ours must be newer than the placeholders'.
RUN find build.rs src -name '*.rs' -exec touch {} + \
    && target="$(rustc -vV | sed -n 's/^host: //p')" \
    && cargo build --release --locked --bin entail --target "$target" \
    && mkdir -p /image/data \
    && cp "target/$target/release/entail" /image/entail

FROM scratch
COPY --from=build /image/entail /entail
# A volume takes over the owner of the directory that it covers.
COPY --from=build --chown=65532:65532 /image/data /data
USER 65532:65532
ENV DATA_DIR=/data
VOLUME /data
EXPOSE 8085 9085
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 CMD ["/entail", "healthcheck"]
ENTRYPOINT ["/entail"]
CMD ["serve"]
