# What the guests share; sourced first. Mounts what a system mounts and offers ways to report.
#
# busybox's shell takes its own ip for ours: functions come before its applets.
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t tmpfs run /run
/bin/busybox mkdir -p /tmp/applets /var
/bin/busybox ln -s /run /var/run
/bin/busybox --install -s /tmp/applets
/bin/busybox rm -f /tmp/applets/ip /tmp/applets/tc
PATH=$PATH:/tmp/applets
cd /tmp

found() {
    for path in /usr/sbin/$1 /sbin/$1 /usr/bin/$1 /bin/$1; do [ ! -x "$path" ] || break; done
    echo "$path"
}
ip_path=$(found ip) tc_path=$(found tc)
ip() { "$ip_path" "$@"; }
tc() { "$tc_path" "$@"; }

say() { echo "vm: $*"; }

seconds() { cut -d' ' -f1 /proc/uptime; }

finish() {
    say "$*"
    poweroff -f
    sleep 60
}

fail() {
    tail -n 40 /tmp/log
    finish "FAILED: $*"
}

check() {
    what=$1
    shift
    "$@" >/tmp/out 2>&1 || { cat /tmp/out; fail "$what"; }
}

# Waits until a command succeeds, 20 s at most.
eventually() {
    what=$1 tries=0
    shift
    until "$@" >/tmp/out 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 200 ] || { cat /tmp/out; fail "$what"; }
        usleep 100000
    done
}

ends_with_status_0() { kill -TERM $pid && wait $pid; }

# Comments carry the time, brackets carry counts; empty built-in chains stay where iptables once looked.
listing() {
    ip -o link | cut -d: -f2
    ip -o address | grep -v fe80
    tc qdisc show | grep -v -e fq_codel
    { iptables-save; ip6tables-save 2>/dev/null; } | grep -e '^-A' -e '^:.* -' -e '^:.* DROP'
    nft list tables | grep -v -E 'table ip6? (raw|filter|nat|mangle)'
}

# Which iptables the guest has from now on: nft or legacy.
use_iptables() {
    for family in iptables ip6tables; do
        for verb in "" -save -restore; do ln -sf "xtables-$1-multi" /usr/sbin/$family$verb; done
    done
}
