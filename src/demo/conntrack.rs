//! What the kernel's connection tracking remembers, and what the notrack rules spared it.

use std::io;
use std::net::IpAddr;

use netlink_packet_netfilter::NetfilterMessageInner;
use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Tuple,
};
use netlink_packet_netfilter::nftables::{
    ExpressionAttribute, Expressions, ListAttribute, NfTablesMessage, RuleAttribute, RuleMessage,
};

use super::netfilter::Netfilter;
use super::{DemoError, Namespace};
use crate::node::nftables::survey::attribute;

/// One tracked flow, in the direction of its first packet, before any NAT.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry {
    /// `true` for TCP, `false` for UDP.
    pub tcp: bool,
    /// Who sent it, a client as a rule.
    pub source: IpAddr,
    /// The sender's port.
    pub source_port: u16,
    /// Whom it was sent to, e.g. a ClusterIP.
    pub destination: IpAddr,
    /// The port it was sent to.
    pub destination_port: u16,
}

impl Entry {
    /// Whether `address` is at either end. An answer to an untracked query is the first packet that
    /// the kernel sees of its flow, so a client may well be the destination.
    pub fn involves(&self, address: impl Into<IpAddr>) -> bool {
        let address = address.into();
        self.source == address || self.destination == address
    }
}

/// The rules that keep packets out of connection tracking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NotrackRules {
    /// nf_tables rules with a notrack statement, or with iptables' `CT` target.
    pub rules: usize,
    /// Packets they matched; `None` when not one of them has a counter.
    pub packets: Option<u64>,
}

/// The UDP and TCP entries with port 53 at either end, IPv4 and IPv6.
pub fn dns_entries(node: &Namespace) -> Result<Vec<Entry>, DemoError> {
    let entries = node
        .run(|| Netfilter::open()?.dump(NetfilterProtoFamily::Unspec, ConntrackMessage::Get(Vec::new())))?;
    let entries = entries.map_err(failed("read the conntrack table (is nf_conntrack_netlink there?)"))?;
    let entries = entries.iter().filter_map(entry);
    Ok(entries.filter(|entry| [entry.source_port, entry.destination_port].contains(&53)).collect())
}

/// Forgets every entry, IPv4 and IPv6.
pub fn flush(node: &Namespace) -> Result<(), DemoError> {
    node.run(|| {
        let everything = ConntrackMessage::Delete(Vec::new());
        Netfilter::open()?.request(NetfilterProtoFamily::Unspec, everything)
    })?
    .map_err(failed("empty the conntrack table"))
}

/// Counts the notrack rules of every table and their packets.
pub fn notrack_rules(node: &Namespace) -> Result<NotrackRules, DemoError> {
    let rules = node.run(|| {
        let all = NfTablesMessage::GetRule(RuleMessage { attributes: Vec::new() });
        Netfilter::open()?.dump(NetfilterProtoFamily::Unspec, all)
    })?;
    let rules = rules.map_err(failed("list the nf_tables rules"))?;
    let mut total = NotrackRules::default();
    for rule in &rules {
        let NetfilterMessageInner::NfTables(NfTablesMessage::NewRule(rule)) = rule else {
            continue;
        };
        let expressions = expressions(rule);
        if expressions.iter().any(spares_tracking) {
            total.rules += 1;
            if let Some(packets) = expressions.iter().find_map(packets) {
                *total.packets.get_or_insert(0) += packets;
            }
        }
    }
    Ok(total)
}

fn failed(step: &'static str) -> impl FnOnce(io::Error) -> DemoError {
    move |source| DemoError::Netfilter { step, source }
}

fn entry(message: &NetfilterMessageInner) -> Option<Entry> {
    let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = message else {
        return None;
    };
    let original = attributes.iter().find_map(|attribute| match attribute {
        ConntrackAttribute::CtaTupleOrig(tuples) => Some(tuples),
        _ => None,
    })?;
    let (mut source, mut destination, mut tcp) = (None, None, None);
    let (mut source_port, mut destination_port) = (None, None);
    for tuple in original {
        match tuple {
            Tuple::Ip(parts) => parts.iter().for_each(|part| match part {
                IPTuple::SourceAddress(address) => source = Some(*address),
                IPTuple::DestinationAddress(address) => destination = Some(*address),
                _ => {}
            }),
            Tuple::Proto(parts) => parts.iter().for_each(|part| match part {
                ProtoTuple::Protocol(Protocol::Tcp) => tcp = Some(true),
                ProtoTuple::Protocol(Protocol::Udp) => tcp = Some(false),
                ProtoTuple::SourcePort(number) => source_port = Some(*number),
                ProtoTuple::DestinationPort(number) => destination_port = Some(*number),
                _ => {}
            }),
            _ => {}
        }
    }
    Some(Entry {
        tcp: tcp?,
        source: source?,
        source_port: source_port?,
        destination: destination?,
        destination_port: destination_port?,
    })
}

fn expressions(rule: &RuleMessage) -> Vec<(&str, &Expressions)> {
    let lists = rule.attributes.iter().filter_map(|attribute| match attribute {
        RuleAttribute::Expressions(list) => Some(list),
        _ => None,
    });
    lists.flatten().filter_map(named).collect()
}

fn named(element: &ListAttribute<ExpressionAttribute>) -> Option<(&str, &Expressions)> {
    let ListAttribute::Element(parts) = element else {
        return None;
    };
    let name = parts.iter().find_map(|part| match part {
        ExpressionAttribute::Name(name) => Some(name.as_str()),
        _ => None,
    })?;
    let data = parts.iter().find_map(|part| match part {
        ExpressionAttribute::Data(data) => Some(data),
        _ => None,
    });
    // notrack carries no data at all.
    static NOTHING: Expressions = Expressions::Unknown(Vec::new());
    Some((name, data.unwrap_or(&NOTHING)))
}

/// `notrack`, or the `target` expression by which iptables-nft embeds `-j CT` and `-j NOTRACK`.
fn spares_tracking((name, data): &(&str, &Expressions)) -> bool {
    const TARGET_NAME: u16 = 1;
    match *name {
        "notrack" => true,
        "target" => attribute(data, TARGET_NAME).is_some_and(|name| name == b"CT\0" || name == b"NOTRACK\0"),
        _ => false,
    }
}

fn packets((name, data): &(&str, &Expressions)) -> Option<u64> {
    const COUNTER_PACKETS: u16 = 2;
    if *name != "counter" {
        return None;
    }
    let value = attribute(data, COUNTER_PACKETS)?;
    Some(u64::from_be_bytes(value.try_into().ok()?))
}
