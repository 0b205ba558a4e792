#!/bin/sh
# Runs cargo for the program as it ships: static, with musl, optimized.
#   sh deploy/static.sh build
#   sh deploy/static.sh run --package doorstep-benches --bin instructions
#   TARGET_ARCH=aarch64 sh deploy/static.sh build
# Needs the package musl-tools, for the TLS library is partly C; for the other architecture its cross compiler
# (tests/packages.sh).
set -eu
cd "$(dirname "$0")/.."
arch=${TARGET_ARCH:-$(uname -m)}
target="$arch-unknown-linux-musl"
# Not every toolchain is rustup's.
! command -v rustup >/dev/null || rustup target add "$target"
command="$1"
shift
if [ "$arch" != "$(uname -m)" ]; then
    # One for glibc will do: the C is freestanding, and what is linked comes with Rust's own musl.
    export TARGET_CC="$arch-linux-gnu-gcc"
    set -- --config "target.$target.linker='$TARGET_CC'" "$@"
fi
exec cargo "$command" --release --locked --target "$target" "$@"
