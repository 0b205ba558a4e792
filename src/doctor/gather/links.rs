//! Links and addresses.

use std::net::{IpAddr, Ipv6Addr};

use super::super::facts::{Kernel, Link, VETH, VXLAN};
use super::{Host, Unread};
use crate::node::links::Listed;

const LINKS: &str = "/sys/class/net";

/// All links.
pub fn links(host: &dyn Host, unread: &mut Unread) -> Vec<Link> {
    let listed = host.links().unwrap_or_else(|why| {
        unread.note("network links", &why);
        Vec::new()
    });
    let mut links: Vec<Link> = listed.into_iter().map(|listed| link(host, listed)).collect();
    if links.iter().any(|link| link.kind == VETH && link.steered.is_none()) {
        unread.note("packet steering", "/sys shows the links of another network namespace");
    }
    links.sort_by(|one, other| one.name.cmp(&other.name));
    links
}

fn link(host: &dyn Host, listed: Listed) -> Link {
    let Listed { name, index, kind, mtu, is_up } = listed;
    let checksum_offload = if kind == VXLAN { checksum_offload(host, &name) } else { None };
    Link { steered: is_steered(host, &name, index), name, kind, mtu, is_up, checksum_offload }
}

/// Whether a mask is set on any of the link's queues. sysfs shows the namespace in which it was mounted, which
/// may have another link of this name.
fn is_steered(host: &dyn Host, name: &str, index: u32) -> Option<bool> {
    let shown = host.text(&format!("{LINKS}/{name}/ifindex")).ok()?;
    if shown.trim().parse() != Ok(index) {
        return None;
    }
    let queues = host.names(&format!("{LINKS}/{name}/queues")).unwrap_or_default();
    Some(queues.iter().filter(|queue| queue.starts_with("rx-")).any(|queue| {
        let mask = host.text(&format!("{LINKS}/{name}/queues/{queue}/rps_cpus")).unwrap_or_default();
        mask.trim().chars().any(|digit| !matches!(digit, '0' | ','))
    }))
}

/// sysfs does not show a link's features; ethtool does, where it is installed.
fn checksum_offload(host: &dyn Host, name: &str) -> Option<bool> {
    let features = host.run("ethtool", &["-k", name]).ok()?;
    let line = features.lines().find_map(|line| line.strip_prefix("tx-checksumming:"))?;
    Some(line.trim().starts_with("on"))
}

/// The node's own addresses.
pub fn addresses(host: &dyn Host) -> Vec<IpAddr> {
    let mut found = Vec::new();
    let mut last = None;
    for line in host.text("/proc/net/fib_trie").unwrap_or_default().lines() {
        let line = line.trim_start();
        match line.strip_prefix("|-- ") {
            Some(address) => last = address.trim().parse().ok(),
            None if line.ends_with("host LOCAL") => found.extend(last.map(IpAddr::V4)),
            None => {}
        }
    }
    for line in host.text("/proc/net/if_inet6").unwrap_or_default().lines() {
        let bits = line.split(' ').next().and_then(|hex| u128::from_str_radix(hex, 16).ok());
        found.extend(bits.map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))));
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Whether links of type dummy can be made, as far as files tell.
pub fn dummy_driver(host: &dyn Host, kernel: Option<&Kernel>) -> Option<bool> {
    if host.names("/sys/module").ok()?.iter().any(|name| name == "dummy") {
        return Some(true);
    }
    let release = &kernel?.release;
    let lists =
        ["modules.dep", "modules.builtin"].map(|list| host.text(&format!("/lib/modules/{release}/{list}")));
    let [Ok(modules), Ok(builtin)] = lists else { return None };
    Some([modules, builtin].iter().any(|list| list.contains("/dummy.ko")))
}
