//! What the kernel's connection tracking remembers, and what the notrack rules spared it.

use std::net::IpAddr;

use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Tuple,
};
use netlink_packet_netfilter::nftables::{
    ExpressionAttribute, ListAttribute, NfTablesMessage, RuleAttribute, RuleMessage,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};

use super::{DemoError, Namespace};
use crate::node::netlink::{self, Connection};
use crate::node::nftables::survey::{attribute, expression};

/// What is asked, in errors; [`DemoError`] tells what for.
pub(super) const NETFILTER: &str = "netfilter";

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
    let step = "read the conntrack table (is nf_conntrack_netlink there?)";
    let all = any_family(ConntrackMessage::Get(Vec::new()));
    let entries = with_netfilter(node, step, |netfilter| netfilter.dump_picked(NETFILTER, all, entry))?;
    Ok(entries
        .into_iter()
        .filter(|entry| [entry.source_port, entry.destination_port].contains(&53))
        .collect())
}

/// Forgets every entry, IPv4 and IPv6.
pub fn flush(node: &Namespace) -> Result<(), DemoError> {
    let step = "empty the conntrack table";
    let everything = any_family(ConntrackMessage::Delete(Vec::new()));
    with_netfilter(node, step, |netfilter| netfilter.request(NETFILTER, everything, 0).map(drop))
}

/// Counts the notrack rules of every table and their packets.
pub fn notrack_rules(node: &Namespace) -> Result<NotrackRules, DemoError> {
    let step = "list the nf_tables rules";
    let all = any_family(NfTablesMessage::GetRule(RuleMessage { attributes: Vec::new() }));
    let counted = |message: NetfilterMessage| {
        let NetfilterMessageInner::NfTables(NfTablesMessage::NewRule(rule)) = message.inner else {
            return None;
        };
        let list = rule.attributes.into_iter().find_map(|attribute| match attribute {
            RuleAttribute::Expressions(list) => Some(list),
            _ => None,
        })?;
        list.iter().any(spares_tracking).then(|| list.iter().find_map(packets))
    };
    let found = with_netfilter(node, step, |netfilter| netfilter.dump_picked(NETFILTER, all, counted))?;
    let packets = found.iter().flatten().copied().reduce(|sum, packets| sum + packets);
    Ok(NotrackRules { rules: found.len(), packets })
}

/// Works on a netfilter socket of the node's.
pub(super) fn with_netfilter<T: Send>(
    node: &Namespace,
    step: &'static str,
    work: impl FnOnce(&mut Connection) -> Result<T, netlink::Error> + Send,
) -> Result<T, DemoError> {
    let done = node.run(|| Connection::netfilter().and_then(|mut netfilter| work(&mut netfilter)))?;
    done.map_err(|source| DemoError::Netfilter { step, source })
}

fn any_family(message: impl Into<NetfilterMessageInner>) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0), message)
}

fn entry(message: NetfilterMessage) -> Option<Entry> {
    let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = &message.inner else {
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

/// `notrack`, or the `target` expression by which iptables-nft embeds `-j CT` and `-j NOTRACK`.
fn spares_tracking(element: &ListAttribute<ExpressionAttribute>) -> bool {
    const TARGET_NAME: u16 = 1;
    let target = expression(element, "target").flatten().and_then(|data| attribute(data, TARGET_NAME));
    let is_it = target.is_some_and(|name| name == b"CT\0" || name == b"NOTRACK\0");
    is_it || expression(element, "notrack").is_some()
}

fn packets(element: &ListAttribute<ExpressionAttribute>) -> Option<u64> {
    const COUNTER_PACKETS: u16 = 2;
    let value = attribute(expression(element, "counter")??, COUNTER_PACKETS)?;
    Some(u64::from_be_bytes(value.try_into().ok()?))
}
