//! What the guardian may relay while no worker stands. It reads no query, so that what holds for an address holds for
//! every block on it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::forward;
use crate::server::Block;

/// Where all queries go, the best first: to whom the first block asks that is not for the root. That is the cluster's,
/// and kube-dns answers for all others, too; those of others would deny the cluster's names.
pub fn upstreams(blocks: &[Block]) -> Vec<SocketAddr> {
    let forwards = blocks.iter().flat_map(|block| block.forwards.iter().map(move |forward| (block, forward)));
    let plain = |forward: &forward::Config| {
        let targets = forward.to.iter().filter(|target| !target.tls);
        targets.map(|target| target.address).collect::<Vec<_>>()
    };
    let candidates = forwards.filter(|(_, forward)| !plain(forward).is_empty());
    let best = candidates.min_by_key(|(block, forward)| {
        let for_the_root = block.zones.iter().all(|(zone, _)| zone.is_root());
        (for_the_root, !forward.from.is_root())
    });
    best.map(|(_, forward)| plain(forward)).unwrap_or_default()
}

/// Addresses where queries wait for the next worker: a block there answers some itself, or changes them on their way.
/// An upstream's NXDOMAIN for a name that `hosts` knows is believed and kept; a query without an answer is asked again.
pub fn unrelayed(blocks: &[Block]) -> Vec<SocketAddr> {
    let own =
        blocks.iter().filter(|block| block.forwards.is_empty() || !block.steps.fingerprint().is_empty());
    let addresses = own.flat_map(|block| &block.zones).flat_map(|(_, addresses)| addresses).copied();
    addresses.collect::<BTreeSet<_>>().into_iter().collect()
}
