#!/bin/sh
# Races look-ups straight to kube-dns and through Doorstep, in network namespaces of this machine.
# Needs Debian, root and a Rust toolchain; installs the rest.  `--hold` keeps the cluster to play with.
set -eu
cd "$(dirname "$0")/.."
. tests/packages.sh
install_packages $BUILD_PACKAGES $TRY_PACKAGES
cargo build --release --locked
exec target/release/doorstep demo "$@"
