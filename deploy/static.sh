#!/bin/sh
# Runs cargo for the program as it ships: static, with musl, optimized.
#   sh deploy/static.sh build
#   sh deploy/static.sh run --package doorstep-benches --bin instructions
# Needs the package musl-tools, for the TLS library is partly C.
set -eu
cd "$(dirname "$0")/.."
target="$(uname -m)-unknown-linux-musl"
# Not every toolchain is rustup's.
! command -v rustup >/dev/null || rustup target add "$target"
command="$1"
shift
exec cargo "$command" --release --locked --target "$target" "$@"
