//! What node-cache wrote with iptables-nft, found and deleted without iptables' tools.
//!
//! iptables-nft keeps its tables in nftables, under the families `ip` and `ip6`. A comment is the match extension
//! `comment` there, or what `nft` takes for one.

use std::net::IpAddr;

use netlink_packet_netfilter::nftables::{NfTablesMessage, RuleAttribute, RuleMessage};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
use rustix::io::Errno;
use tracing::info;

use super::expression::{NETWORK_HEADER, Step, read};
use super::survey::{Foreign, attribute, expression, foreign, ip};
use crate::node::netlink::{Connection, Error};
use crate::node::rules::{COMMENT_PREFIX, Chain, Table};

/// `NFTA_MATCH_NAME`: the extension.
const MATCH_NAME: u16 = 1;
/// `NFTA_MATCH_INFO`: what it was given; of `comment` the text, up to the first NUL.
const MATCH_INFO: u16 = 3;
/// Where node-cache writes. Others have their thousands of rules in chains of their own.
const PLACES: [(Table, Chain); 4] = [
    (Table::Raw, Chain::Prerouting),
    (Table::Raw, Chain::Output),
    (Table::Filter, Chain::Input),
    (Table::Filter, Chain::Output),
];
/// A rule that vanishes between reading and deleting fails the whole transaction: read again.
const ATTEMPTS: usize = 3;
/// Rules in a transaction: as many as a socket's default buffer surely holds.
const AT_ONCE: usize = 1_000;

/// Deletes the rules in the built-in chains of `raw` and `filter` of both families that carry node-cache's comment
/// and are not for an address in `elsewhere`: there somebody else answers. Returns how many there were.
///
/// All go in one transaction, or none; beyond a thousand, in several.
pub fn remove(elsewhere: &[IpAddr]) -> Result<usize, Error> {
    let mut connection = Connection::netfilter()?;
    let (mut deleted, mut attempt) = (0, 1);
    loop {
        let mut doomed = list(&mut connection, elsewhere)?;
        let all = doomed.len() <= AT_ONCE;
        doomed.truncate(AT_ONCE);
        let count = doomed.len();
        if count > 0 {
            let deletions = doomed.into_iter().map(|rule| (deletion(rule), 0)).collect();
            match connection.transaction("delete leftover rules", deletions) {
                Err(e) if e.refusal() == Some(Errno::NOENT) && attempt < ATTEMPTS => {
                    attempt += 1;
                    continue;
                }
                outcome => outcome?,
            }
            deleted += count;
        }
        if all {
            break;
        }
    }
    if deleted > 0 {
        info!("{deleted} leftover rules deleted from the tables of iptables-nft");
    }
    Ok(deleted)
}

fn list(connection: &mut Connection, elsewhere: &[IpAddr]) -> Result<Vec<Foreign>, Error> {
    let mut found = Vec::new();
    for family in [NetfilterProtoFamily::IPv4, NetfilterProtoFamily::IPv6] {
        for (table, chain) in PLACES.map(|(table, chain)| (table.iptables(), chain.iptables())) {
            let attributes = vec![RuleAttribute::Table(table.into()), RuleAttribute::Chain(chain.into())];
            let request = NfTablesMessage::GetRule(RuleMessage { attributes });
            let request = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), request);
            found.extend(connection.dump_picked("list leftover rules", request, |message| {
                let rule = foreign(message)?;
                // Kernels before 4.13 do not filter the dump.
                let is_here = rule.family == family && rule.table == table && rule.chain == chain;
                let is_kept = || addresses(&rule).any(|ip| elsewhere.contains(&ip));
                (is_here && is_commented(&rule) && !is_kept()).then_some(rule)
            })?);
        }
    }
    Ok(found)
}

fn is_commented(rule: &Foreign) -> bool {
    let by_match = || {
        rule.expressions.iter().filter_map(|element| expression(element, "match")?).any(|data| {
            let is_comment = attribute(data, MATCH_NAME).is_some_and(|name| name == b"comment\0");
            is_comment
                && attribute(data, MATCH_INFO).is_some_and(|text| text.starts_with(COMMENT_PREFIX.as_bytes()))
        })
    };
    rule.comment.as_ref().is_some_and(|text| text.starts_with(COMMENT_PREFIX)) || by_match()
}

/// The addresses that packets must have for the rule.
fn addresses(rule: &Foreign) -> impl Iterator<Item = IpAddr> {
    let steps: Vec<Option<Step>> = rule.expressions.iter().map(read).collect();
    let found: Vec<IpAddr> = steps
        .windows(2)
        .filter_map(|pair| match pair {
            [Some(Step::Payload { base: NETWORK_HEADER, .. }), Some(Step::Equal(octets))] => ip(octets),
            _ => None,
        })
        .collect();
    found.into_iter()
}

fn deletion(rule: Foreign) -> NetfilterMessage {
    let attributes = vec![
        RuleAttribute::Table(rule.table),
        RuleAttribute::Chain(rule.chain),
        RuleAttribute::Handle(rule.handle),
    ];
    let message = NfTablesMessage::DeleteRule(RuleMessage { attributes });
    NetfilterMessage::new(NetfilterHeader::new(rule.family, 0, 0), message)
}
