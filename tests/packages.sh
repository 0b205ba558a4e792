# Debian packages by purpose, and how to install those that are missing. Sourced, not run.

# A linker and a C compiler, for the TLS library.
BUILD_PACKAGES='gcc libc6-dev'
# The same for the static program, which deploy/static.sh builds.
STATIC_PACKAGES='musl-tools'
# The same for an aarch64 node, on another machine.
AARCH64_PACKAGES='gcc-aarch64-linux-gnu libc6-dev-arm64-cross'
# What `deploy/try.sh --hold` suggests to use.
TRY_PACKAGES='iproute2 bind9-dnsutils conntrack curl'
# Peers and tools the suites run against.
TEST_PACKAGES='bind9-dnsutils conntrack iproute2 iptables knot-dnsutils nftables nsd procps unbound util-linux'
# What benches/ counts and compares with: an upstream, valgrind, objdump and strip.
BENCH_PACKAGES='binutils nsd valgrind'
# Who is measured beside Doorstep if it is there.
PEER_PACKAGES='bind9 dnsdist dnsmasq-base knot-resolver pdns-recursor unbound'
# What boots a stock kernel in tests/vm.
VM_PACKAGES='binutils busybox-static conntrack cpio iproute2 iptables ipvsadm kmod nftables qemu-system-x86'
# The fuzzing engine is C++.
FUZZ_PACKAGES='g++'

install_packages() {
    missing=
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    echo "installing:$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # The DNS servers among them are for the suites; none is to start on this machine's port 53.
    policy=/usr/sbin/policy-rc.d
    if [ -e "$policy" ]; then policy=; else printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy"; fi
    status=0
    # shellcheck disable=SC2086
    apt-get install -y -qq --no-install-recommends $missing >/dev/null || status=$?
    [ -z "$policy" ] || rm -f "$policy"
    return "$status"
}
