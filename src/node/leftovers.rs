//! What a killed node-cache leaves: rules that send queries past kube-proxy to an address that nobody answers at.

use std::net::IpAddr;

use rustix::io::Errno;
use tracing::warn;

use super::iptables::{self, Family};
use super::rules::{COMMENT_PREFIX, Table};
use super::{Error, netlink, nftables};

/// Deletes the rules of both families with node-cache's comment, save those for an address in `elsewhere`: there
/// somebody else answers. Goes on after failures and returns them all.
///
/// Those of iptables-nft go over netlink. Those of iptables-legacy go with its tools, where there are any.
pub fn remove(elsewhere: &[IpAddr]) -> Vec<Error> {
    let mut errors: Vec<Error> = remove_nft(elsewhere).err().into_iter().collect();
    for family in Family::BOTH {
        match iptables::remove_commented(family, elsewhere) {
            Ok(_) => {}
            Err(iptables::Error::Missing { .. }) => tell_of_legacy(family),
            Err(e) => errors.push(Error::Iptables(e)),
        }
    }
    errors
}

/// The same for iptables-nft alone: cheap enough to be done again and again.
pub fn remove_nft(elsewhere: &[IpAddr]) -> Result<(), Error> {
    match nftables::leftovers::remove(elsewhere) {
        Ok(_) => Ok(()),
        // A kernel without nftables holds none.
        Err(netlink::Error::Socket { errno, .. }) if errno == Errno::PROTONOSUPPORT => Ok(()),
        Err(e) => Err(Error::Nftables(e)),
    }
}

/// Says that there is something which cannot be looked into: the kernel names the tables of iptables-legacy, but
/// only its tools read them.
fn tell_of_legacy(family: Family) {
    let (path, save) = match family {
        Family::V4 => ("/proc/thread-self/net/ip_tables_names", "iptables-legacy-save"),
        Family::V6 => ("/proc/thread-self/net/ip6_tables_names", "ip6tables-legacy-save"),
    };
    let names = std::fs::read_to_string(path).unwrap_or_default();
    if names.lines().any(|name| name == Table::Raw.iptables()) {
        warn!(
            "iptables-legacy has a table `raw` on this node, and there are no tools to look into it: if a \
             node-cache was killed here, its rules may be in it, and keep DNS from kube-proxy once nobody serves \
             it here. On the node `{save} | grep '{COMMENT_PREFIX}'` shows them"
        );
    }
}
