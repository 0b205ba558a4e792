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
use super::{Ownership, TABLE, Table, comment_of};
use crate::node::netlink::{Connection, Error};
use crate::node::remedy::random_fully;
use crate::node::rules::{Direction, Protocol, Rule, Verdict};

/// `NFTA_COUNTER_PACKETS`.
const COUNTER_PACKETS: u16 = 2;
/// `NFTA_MASQ_FLAGS`.
pub const MASQUERADE_FLAGS: u16 = 1;
/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY` among them.
pub const RANDOM_FULLY: u32 = 1 << 4;

const KUBE_PROXY_CHAIN: &str = "KUBE-SERVICES";

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// The names of all tables of all families.
    pub tables: Vec<String>,
    /// The rules of our own table, with the packets each has seen.
    pub rules: Vec<(Rule, u64)>,
    /// Rules that masquerade without `fully-random`, those aside that `remedy random-fully` set one before: "table
    /// inet cni, chain post, handle 7".
    pub masquerade: Vec<String>,
    /// The chains of kube-proxy's iptables mode are there: iptables-nft keeps its rules here.
    pub kube_proxy_chains: bool,
}

/// A rule of anybody's.
pub(super) struct Foreign {
    pub(super) family: NetfilterProtoFamily,
    pub(super) table: String,
    pub(super) chain: String,
    pub(super) handle: u64,
    pub(super) comment: Option<String>,
    pub(super) expressions: Vec<ListAttribute<ExpressionAttribute>>,
}

/// What one rule tells.
enum Told {
    Ours(Rule, u64),
    Masquerade { place: String, handle: u64, is_remedy: bool, is_random: bool },
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
    let mut cured = None;
    for told in told {
        match told {
            Told::Ours(rule, packets) => found.rules.push((rule, packets)),
            Told::Masquerade { place, handle, is_remedy, is_random } => {
                if !is_random && cured.as_ref() != Some(&place) {
                    found.masquerade.push(format!("{place}, handle {handle}"));
                }
                cured = is_remedy.then_some(place);
            }
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
    Some(Told::Masquerade {
        is_random: masquerade_flags(named(&rule, "masq")?) & RANDOM_FULLY != 0,
        is_remedy: rule.comment.as_deref() == Some(random_fully::COMMENT),
        place: format!("table {} {}, chain {}", family_name(rule.family), rule.table, rule.chain),
        handle: rule.handle,
    })
}

pub(super) fn foreign(message: NetfilterMessage) -> Option<Foreign> {
    let family = message.header.family;
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewRule(rule)) = message.inner else {
        return None;
    };
    let (mut table, mut chain, mut handle, mut comment, mut expressions) = (None, None, 0, None, Vec::new());
    for attribute in rule.attributes {
        match attribute {
            RuleAttribute::Handle(number) => handle = number,
            RuleAttribute::UserData(bytes) => comment = comment_of(&bytes),
            RuleAttribute::Table(name) => table = Some(name),
            RuleAttribute::Chain(name) => chain = Some(name),
            RuleAttribute::Expressions(list) => expressions = list,
            _ => {}
        }
    }
    Some(Foreign { family, table: table?, chain: chain?, handle, comment, expressions })
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

pub(super) fn ip(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

/// Packets that the rule's counter has seen; 0 without a counter.
fn packets(rule: &Foreign) -> u64 {
    let octets = named(rule, "counter").flatten().and_then(|data| attribute(data, COUNTER_PACKETS));
    octets.and_then(|octets| octets.try_into().ok()).map_or(0, u64::from_be_bytes)
}

/// The flags of a `masq` expression.
pub fn masquerade_flags(data: Option<&Expressions>) -> u32 {
    let octets = data.and_then(|data| attribute(data, MASQUERADE_FLAGS));
    octets.and_then(|octets| octets.try_into().ok()).map_or(0, u32::from_be_bytes)
}

/// As `nft` calls it.
pub fn family_name(family: NetfilterProtoFamily) -> &'static str {
    match family {
        NetfilterProtoFamily::Inet => "inet",
        NetfilterProtoFamily::IPv4 => "ip",
        NetfilterProtoFamily::IPv6 => "ip6",
        _ => "of another family",
    }
}

/// The first expression of this name: `Some(None)` if it comes without data.
fn named<'a>(rule: &'a Foreign, wanted: &str) -> Option<Option<&'a Expressions>> {
    rule.expressions.iter().find_map(|element| expression(element, wanted))
}

/// The expression, if it has this name: `Some(None)` if it comes without data.
pub fn expression<'a>(
    element: &'a ListAttribute<ExpressionAttribute>,
    wanted: &str,
) -> Option<Option<&'a Expressions>> {
    let ListAttribute::Element(parts) = element else { return None };
    let is_it =
        |part: &ExpressionAttribute| matches!(part, ExpressionAttribute::Name(name) if name == wanted);
    parts.iter().any(is_it).then(|| {
        parts.iter().find_map(|part| match part {
            ExpressionAttribute::Data(data) => Some(data),
            _ => None,
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
