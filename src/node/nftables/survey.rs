//! What all nftables rules on this node say about DNS and masquerading; nothing is changed.

use std::net::IpAddr;

use netlink_packet_core::Nla;
use netlink_packet_netfilter::nftables::MetaKey;
use netlink_packet_netfilter::nftables::{
    ExpressionAttribute, Expressions, ListAttribute, NfTablesMessage, RuleAttribute, RuleMessage,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};

use super::contents::base_chain;
use super::expression::{NETWORK_HEADER, Step, TRANSPORT_HEADER, from_kernel};
use super::{Ownership, TABLE, Table};
use crate::node::netlink::{Connection, Error};
use crate::node::rules::{Direction, Protocol, Rule, Verdict};

/// `NFTA_COUNTER_PACKETS`.
const COUNTER_PACKETS: u16 = 2;
/// `NFTA_MASQ_FLAGS`, and `NF_NAT_RANGE_PROTO_RANDOM_FULLY` in it.
const MASQUERADE_FLAGS: u16 = 1;
const RANDOM_FULLY: u32 = 1 << 4;

const KUBE_PROXY_CHAIN: &str = "KUBE-SERVICES";

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// The names of all tables of all families.
    pub tables: Vec<String>,
    /// The rules of our own table, with the packets each has seen.
    pub rules: Vec<(Rule, u64)>,
    /// Rules that masquerade without `fully-random`, as (table, chain).
    pub masquerade: Vec<(String, String)>,
    /// The chains of kube-proxy's iptables mode are there: iptables-nft keeps its rules here.
    pub kube_proxy_chains: bool,
}

/// A rule of anybody's.
struct Foreign {
    table: String,
    chain: String,
    expressions: Vec<ListAttribute<ExpressionAttribute>>,
}

/// What one rule tells.
enum Told {
    Ours(Rule, u64),
    Masquerade(String, String),
    KubeProxy,
}

/// Reads all tables. Needs `CAP_NET_ADMIN`.
pub fn survey() -> Result<Survey, Error> {
    let tables = Table::open(Ownership::Plain)?.names()?;
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0);
    let request = NfTablesMessage::GetRule(RuleMessage { attributes: Vec::new() });
    let request = NetfilterMessage::new(header, request);
    let told = Connection::netfilter()?.dump_picked("list rules", request, told)?;
    let mut found = Survey { tables, ..Survey::default() };
    for told in told {
        match told {
            Told::Ours(rule, packets) => found.rules.push((rule, packets)),
            Told::Masquerade(table, chain) => found.masquerade.push((table, chain)),
            Told::KubeProxy => found.kube_proxy_chains = true,
        }
    }
    Ok(found)
}

fn told(message: NetfilterMessage) -> Option<Told> {
    let rule = foreign(message)?;
    if rule.table == TABLE {
        return ours(&rule).map(|ours| Told::Ours(ours, packets(&rule)));
    }
    if rule.chain == KUBE_PROXY_CHAIN {
        return Some(Told::KubeProxy);
    }
    masquerades_in_order(&rule).then_some(Told::Masquerade(rule.table, rule.chain))
}

fn foreign(message: NetfilterMessage) -> Option<Foreign> {
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewRule(rule)) = message.inner else {
        return None;
    };
    let (mut table, mut chain, mut expressions) = (None, None, Vec::new());
    for attribute in rule.attributes {
        match attribute {
            RuleAttribute::Table(name) => table = Some(name),
            RuleAttribute::Chain(name) => chain = Some(name),
            RuleAttribute::Expressions(list) => expressions = list,
            _ => {}
        }
    }
    Some(Foreign { table: table?, chain: chain?, expressions })
}

/// The typed rule, the inverse of [`super::expression::steps`].
fn ours(rule: &Foreign) -> Option<Rule> {
    let (table, chain) = base_chain(&rule.chain)?;
    let steps = from_kernel(&rule.expressions)?;
    let (mut address, mut port, mut protocol) = (None, None, None);
    for pair in steps.windows(2) {
        let [load, Step::Equal(octets)] = pair else { continue };
        match load {
            Step::Payload { base: NETWORK_HEADER, offset, .. } => {
                let direction = if matches!(offset, 16 | 24) { Direction::To } else { Direction::From };
                address = Some((direction, ip(octets)?));
            }
            Step::Payload { base: TRANSPORT_HEADER, .. } => {
                port = Some(u16::from_be_bytes(octets.as_slice().try_into().ok()?));
            }
            Step::Meta(MetaKey::L4Proto) => {
                protocol = Some(if octets == &[6] { Protocol::Tcp } else { Protocol::Udp });
            }
            _ => {}
        }
    }
    let (direction, address) = address?;
    let verdict = match steps.last()? {
        Step::NoTrack => Verdict::NoTrack,
        Step::Accept => Verdict::Accept,
        _ => return None,
    };
    Some(Rule { table, chain, protocol: protocol?, direction, address, port: port?, verdict })
}

fn ip(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

/// Packets that the rule's counter has seen; 0 without a counter.
fn packets(rule: &Foreign) -> u64 {
    let octets = named(rule, "counter").flatten().and_then(|data| attribute(data, COUNTER_PACKETS));
    octets.and_then(|octets| octets.try_into().ok()).map_or(0, u64::from_be_bytes)
}

fn masquerades_in_order(rule: &Foreign) -> bool {
    let flags = |data: Option<&Expressions>| {
        let octets = attribute(data?, MASQUERADE_FLAGS)?;
        octets.try_into().ok().map(u32::from_be_bytes)
    };
    named(rule, "masq").is_some_and(|data| flags(data).unwrap_or(0) & RANDOM_FULLY == 0)
}

/// The first expression of this name: `Some(None)` if it comes without data.
fn named<'a>(rule: &'a Foreign, wanted: &str) -> Option<Option<&'a Expressions>> {
    rule.expressions.iter().find_map(|element| {
        let ListAttribute::Element(parts) = element else { return None };
        let is_it =
            |part: &ExpressionAttribute| matches!(part, ExpressionAttribute::Name(name) if name == wanted);
        parts.iter().any(is_it).then(|| {
            parts.iter().find_map(|part| match part {
                ExpressionAttribute::Data(data) => Some(data),
                _ => None,
            })
        })
    })
}

/// The value of one attribute of an expression that the netlink crate has no type for.
pub fn attribute(data: &Expressions, kind: u16) -> Option<Vec<u8>> {
    let Expressions::Other { attributes, .. } = data else {
        return None;
    };
    let attribute = attributes.iter().find(|attribute| attribute.kind() == kind)?;
    let mut value = vec![0; attribute.value_len()];
    attribute.emit_value(&mut value);
    Some(value)
}
