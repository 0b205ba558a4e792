//! Links and addresses.

use std::net::{IpAddr, Ipv6Addr};

use super::super::facts::{Kernel, Link};
use super::{Host, Unread};

const LINKS: &str = "/sys/class/net";
/// `ARPHRD_ETHER`.
const ETHERNET: &str = "1";

/// All links that sysfs shows; it shows those of the namespace in which it was mounted.
pub fn links(host: &dyn Host, unread: &mut Unread) -> Vec<Link> {
    let names = unread.take("network links", host.names(LINKS)).unwrap_or_default();
    let mut links: Vec<Link> = names.into_iter().filter_map(|name| link(host, name)).collect();
    links.sort_by(|one, other| one.name.cmp(&other.name));
    links
}

fn link(host: &dyn Host, name: String) -> Option<Link> {
    let read =
        |file: &str| host.text(&format!("{LINKS}/{name}/{file}")).ok().map(|text| text.trim().to_owned());
    let mtu = read("mtu")?.parse().ok()?;
    let uevent = read("uevent").unwrap_or_default();
    let kind = uevent.lines().find_map(|line| line.strip_prefix("DEVTYPE=")).map(str::to_owned);
    let peer = read("iflink").filter(|peer| peer != "0" && Some(peer) != read("ifindex").as_ref());
    let flags = read("flags").and_then(|hex| u32::from_str_radix(hex.trim_start_matches("0x"), 16).ok());
    let checksum_offload =
        if kind.as_deref() == Some("vxlan") { checksum_offload(host, &name) } else { None };
    Some(Link {
        mtu,
        is_veth: kind.is_none() && peer.is_some() && read("type").as_deref() == Some(ETHERNET),
        is_up: flags.is_some_and(|flags| flags & 1 == 1),
        steered: is_steered(host, &name),
        checksum_offload,
        kind,
        name,
    })
}

fn is_steered(host: &dyn Host, name: &str) -> bool {
    let queues = host.names(&format!("{LINKS}/{name}/queues")).unwrap_or_default();
    queues.iter().filter(|queue| queue.starts_with("rx-")).any(|queue| {
        let mask = host.text(&format!("{LINKS}/{name}/queues/{queue}/rps_cpus")).unwrap_or_default();
        mask.trim().chars().any(|digit| !matches!(digit, '0' | ','))
    })
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
