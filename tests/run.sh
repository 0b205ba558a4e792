#!/bin/sh
# Runs every suite, then the guest of tests/vm; with arguments, only what `cargo test` makes of them.
# Needs Debian, root (network namespaces, netfilter) and a Rust toolchain; installs the rest.
set -eu
cd "$(dirname "$0")/.."
. tests/packages.sh
install_packages $BUILD_PACKAGES $TEST_PACKAGES
cargo test --locked --workspace "$@"
[ $# -gt 0 ] || tests/vm/run
