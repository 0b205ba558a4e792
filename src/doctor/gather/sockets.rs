//! Who waits on the ports that the cache uses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::super::facts::Listener;
use super::processes::pids;
use super::{Host, Unread};
use crate::node::rules::Protocol;

/// TCP's LISTEN, and the state of a UDP socket without a peer.
const LISTEN: &str = "0A";
const UNCONNECTED: &str = "07";

/// Sockets of both families on `ports`, and their owners.
pub fn listeners(host: &dyn Host, ports: &[u16], unread: &mut Unread) -> Vec<Listener> {
    let mut found = Vec::new();
    for (file, protocol) in
        [("udp", Protocol::Udp), ("udp6", Protocol::Udp), ("tcp", Protocol::Tcp), ("tcp6", Protocol::Tcp)]
    {
        let table = unread.take("sockets", host.text(&format!("/proc/net/{file}"))).unwrap_or_default();
        let of_interest = |&(_, port, _): &(IpAddr, u16, u64)| ports.contains(&port);
        for (address, port, inode) in
            table.lines().filter_map(|line| socket(line, protocol)).filter(of_interest)
        {
            found.push((Listener { protocol, address, port, owner: None }, inode));
        }
    }
    let owners = owners(host, &found.iter().map(|(_, inode)| *inode).collect::<Vec<u64>>());
    let owned = found.into_iter().map(|(mut listener, inode)| {
        listener.owner = owners.get(&inode).cloned();
        listener
    });
    owned.collect()
}

/// A line of `/proc/net/udp` or `tcp`: local address, port, inode.
fn socket(line: &str, protocol: Protocol) -> Option<(IpAddr, u16, u64)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let wanted = if protocol == Protocol::Tcp { LISTEN } else { UNCONNECTED };
    let [_, local, _, state, ..] = words[..] else { return None };
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let inode = words.get(9)?.parse().ok()?;
    (state == wanted).then_some((ip(address)?, port, inode))
}

/// Words of four octets, each printed as the number that this machine reads from them.
fn ip(hex: &str) -> Option<IpAddr> {
    let mut octets = Vec::new();
    for start in (0..hex.len()).step_by(8) {
        let word = u32::from_str_radix(hex.get(start..start + 8)?, 16).ok()?;
        octets.extend(word.to_ne_bytes());
    }
    let v4 = <[u8; 4]>::try_from(octets.as_slice()).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets.as_slice()).map(IpAddr::from)).ok()
}

/// Which process has a descriptor of each of these sockets.
fn owners(host: &dyn Host, inodes: &[u64]) -> BTreeMap<u64, (u32, String)> {
    let mut owners = BTreeMap::new();
    if inodes.is_empty() {
        return owners;
    }
    for pid in pids(host) {
        // Not ours to look at, or ended meanwhile.
        let Ok(descriptors) = host.names(&format!("/proc/{pid}/fd")) else { continue };
        for descriptor in descriptors {
            let target = host.target(&format!("/proc/{pid}/fd/{descriptor}")).unwrap_or_default();
            let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')?.parse().ok());
            let Some(inode) = inode.filter(|inode| inodes.contains(inode)) else { continue };
            let name = host.text(&format!("/proc/{pid}/comm")).unwrap_or_default();
            owners.entry(inode).or_insert((pid, name.trim().to_owned()));
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc() {
        let udp =
            " 2062: 0A14FEA9:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 4711 2 0 0";
        assert_eq!(socket(udp, Protocol::Udp), Some(("169.254.20.10".parse().unwrap(), 53, 4711)));
        assert_eq!(socket(&udp.replace(" 07 ", " 01 "), Protocol::Udp), None);
        assert_eq!(socket(udp, Protocol::Tcp), None);
        assert_eq!(socket("  sl  local_address rem_address   st", Protocol::Udp), None);
        assert_eq!(ip("00000000000000000000000001000000"), Some("::1".parse().unwrap()));
        assert_eq!(ip("0100007"), None);
    }
}
