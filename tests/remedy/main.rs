//! The remedies in the running kernel, in namespaces. Needs root, `iproute2`, `nftables`, `iptables`
//! and `conntrack`. What needs IPVS, netem or a race is in `tests/vm`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "../common/mod.rs"]
mod common;

mod aaaa_delay;
mod ipvs_notrack;
mod pod;
mod program;
mod random_fully;
mod rps;

/// Both families' rules and chains, without comments that carry the time and without counts.
fn iptables_listing() -> Vec<String> {
    let saved = common::netns::run("iptables-save; ip6tables-save");
    // Empty built-in chains appear wherever the tool looked once.
    let kept = |line: &&str| line.starts_with("-A") || (line.starts_with(':') && !line.contains(" ACCEPT "));
    saved.lines().filter(kept).map(|line| line.split(" [").next().unwrap().to_owned()).collect()
}

/// Every table that is not iptables-nft's own.
fn nft_listing() -> String {
    let tables = common::netns::run("nft list tables");
    let own = |line: &&str| !["raw", "filter", "nat", "mangle"].iter().any(|name| line.ends_with(name));
    let lists = tables.lines().filter(own).map(|line| common::netns::run(&format!("nft list {line}")));
    lists.collect()
}
