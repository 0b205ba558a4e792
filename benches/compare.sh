#!/bin/sh
# Measures Doorstep beside the bare echo and the DNS servers that are installed; see benches/README.md.
#   sh benches/compare.sh [--install] [--quick | --smoke] [--node-cache FILE] [--only NAME,...] [--out STEM]
# --install, the first word if at all, installs the peers that are missing.
set -eu
cd "$(dirname "$0")/.."
. tests/packages.sh
install_packages $BUILD_PACKAGES $STATIC_PACKAGES $BENCH_PACKAGES
if [ "${1-}" = --install ]; then
    shift
    install_packages $PEER_PACKAGES
fi
sh deploy/static.sh build --no-default-features --package doorstep --package doorstep-benches
programs="${CARGO_TARGET_DIR:-target}/$(uname -m)-unknown-linux-musl/release"
exec "$programs/compare" --doorstep "$programs/doorstep" "$@"
