#!/bin/sh
# Runs every suite.  Needs Debian, root (network namespaces, netfilter) and a Rust toolchain; installs
# the rest.
set -eu
cd "$(dirname "$0")/.."
. tests/packages.sh
install_packages $BUILD_PACKAGES $TEST_PACKAGES
exec cargo test --locked "$@"
