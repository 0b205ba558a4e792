//! What kube-proxy installs for two Services, in the shapes of two of its modes, over netlink.
//!
//! Tracked packets to a ClusterIP are rewritten to one of the endpoints (DNAT); packets of non-pods,
//! or of everybody, also get the node's address (masquerade), so that the answers come back through
//! the node. Either shape is an nf_tables table here: on today's distributions `iptables` writes
//! nothing else.

use std::net::Ipv4Addr;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, DataAttribute, Expressions, Hook, HookNumber, InetHookNumber,
    ListAttribute, NfTablesMessage, RuleAttribute, RuleMessage, SetAttribute, SetElementAttribute,
    SetElementList, SetElementMessage, SetFlags, SetMessage, TableAttribute, TableMessage,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};

use super::conntrack::{NETFILTER, with_netfilter};
use super::expressions::{
    destination_is, dnat, goto, is_marked, jump, look_up_random, look_up_service, masquerade, one_in,
    service_is, set_mark, source_is_not_in,
};
use super::network::{KUBE_DNS_PODS, KUBE_DNS_VIP, UPSTREAM_VIP};
use super::{DemoError, Namespace};

const TABLE: &str = "kube-proxy";
const SERVICES: &str = "services";
const ENDPOINTS: &str = "endpoints";
const DNS_PORT: u16 = 53;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// The first two octets of every pod's address.
const POD_CIDR: [u8; 2] = [10, 244];
/// The mark that asks for masquerading, kube-proxy's default.
const MASQUERADE_MARK: u32 = 0x4000;

/// The Service rules of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceRules {
    /// How a rule finds its Service, and a Service its endpoint.
    pub shape: Shape,
    /// How many of [`KUBE_DNS_PODS`] are behind each ClusterIP, at least one.
    pub endpoints: usize,
    /// Who gets the node's address.
    pub masquerade: Masquerade,
}

/// What the rules look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shape {
    /// As kube-proxy's iptables mode: a rule for each Service, one after another, and in each Service's
    /// chain a rule for each endpoint that takes its share at random.
    Iptables,
    /// As kube-proxy's nftables mode: a map from address, protocol and port to the Service's chain, and
    /// a map from a random number to the endpoint's.
    Nftables,
}

/// Who gets the node's address on the way to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Masquerade {
    /// Everybody but pods, with a random port: kube-proxy's default.
    NonPods,
    /// Pods too, with the port they have if it is free: `--masquerade-all` by an iptables that does not
    /// know `--random-fully`.
    EveryoneKeepingPorts,
}

impl Shape {
    /// Both.
    pub const ALL: [Shape; 2] = [Shape::Iptables, Shape::Nftables];

    /// The key in JSON.
    pub fn key(self) -> &'static str {
        match self {
            Shape::Iptables => "iptables",
            Shape::Nftables => "nftables",
        }
    }
}

impl Default for ServiceRules {
    fn default() -> ServiceRules {
        ServiceRules { shape: Shape::Nftables, endpoints: 1, masquerade: Masquerade::NonPods }
    }
}

/// Puts the rules in the place of those before, in one transaction; they end with the node's namespace.
pub(super) fn install(node: &Namespace, rules: ServiceRules) -> Result<(), DemoError> {
    let step = "install the Service rules (is nf_tables with nat and numgen in this kernel?)";
    let header = || NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0);
    let message = |change| (NetfilterMessage::new(header(), change), NLM_F_CREATE | NLM_F_APPEND);
    let changes = ruleset(rules).into_iter().map(message).collect();
    with_netfilter(node, step, |netfilter| netfilter.transaction(NETFILTER, changes))
}

fn ruleset(rules: ServiceRules) -> Vec<NfTablesMessage> {
    let table = || TableMessage { attributes: vec![TableAttribute::Name(TABLE.into())] };
    let mut messages = vec![
        // Deleting what is not there is an error, so it is made first.
        NfTablesMessage::NewTable(table()),
        NfTablesMessage::DeleteTable(table()),
        NfTablesMessage::NewTable(table()),
        chain(SERVICES),
        // dstnat, the priority of DNAT on the way out, and srcnat.
        nat_chain("prerouting", InetHookNumber::PreRouting, -100),
        nat_chain("output", InetHookNumber::LocalOut, -100),
        nat_chain("postrouting", InetHookNumber::PostRouting, 100),
        rule("prerouting", vec![jump(SERVICES)]),
        rule("output", vec![jump(SERVICES)]),
        rule("postrouting", masquerade_marked(rules.masquerade)),
    ];
    let endpoints = &KUBE_DNS_PODS[..rules.endpoints.clamp(1, KUBE_DNS_PODS.len())];
    for (service, protocol) in services() {
        messages.push(chain(&chain_of(service, protocol)));
        messages.push(rule(&chain_of(service, protocol), mark(rules.masquerade)));
    }
    messages.extend(match rules.shape {
        Shape::Iptables => one_after_another(endpoints),
        Shape::Nftables => by_maps(endpoints),
    });
    messages
}

fn services() -> impl Iterator<Item = (Ipv4Addr, u8)> {
    [KUBE_DNS_VIP, UPSTREAM_VIP].into_iter().flat_map(|service| [(service, UDP), (service, TCP)])
}

fn chain_of(service: Ipv4Addr, protocol: u8) -> String {
    let protocol = if protocol == UDP { "udp" } else { "tcp" };
    format!("service-{service}-{protocol}")
}

fn one_after_another(endpoints: &[Ipv4Addr]) -> Vec<NfTablesMessage> {
    let mut messages = Vec::new();
    for (service, protocol) in services() {
        let mut expressions = destination_is(service).to_vec();
        expressions.extend(service_is(protocol, DNS_PORT));
        expressions.push(jump(&chain_of(service, protocol)));
        messages.push(rule(SERVICES, expressions));
        for (left, endpoint) in (1..=endpoints.len() as u32).rev().zip(endpoints) {
            let mut expressions = if left > 1 { one_in(left).to_vec() } else { Vec::new() };
            expressions.extend(dnat(*endpoint, DNS_PORT));
            messages.push(rule(&chain_of(service, protocol), expressions));
        }
    }
    messages
}

fn by_maps(endpoints: &[Ipv4Addr]) -> Vec<NfTablesMessage> {
    let (mut messages, mut elements) = (Vec::new(), Vec::new());
    for (number, endpoint) in (0u32..).zip(endpoints) {
        let name = format!("endpoint-{endpoint}");
        messages.push(chain(&name));
        messages.push(rule(&name, dnat(*endpoint, DNS_PORT).to_vec()));
        elements.push((number.to_ne_bytes().to_vec(), goto(&name)));
    }
    // nft's number of the type integer.
    messages.extend(verdict_map(ENDPOINTS, 1, 4, 4, elements));
    let mut elements = Vec::new();
    for (service, protocol) in services() {
        let name = chain_of(service, protocol);
        messages.push(rule(&name, look_up_random(ENDPOINTS, endpoints.len() as u32).to_vec()));
        let port = DNS_PORT.to_be_bytes();
        let key = [&service.octets()[..], &[protocol, 0, 0, 0], &port, &[0, 0]].concat();
        elements.push((key, goto(&name)));
    }
    // ipv4_addr . inet_proto . inet_service
    messages.extend(verdict_map(SERVICES, 2, (7 << 12) | (12 << 6) | 13, 12, elements));
    messages.push(rule(SERVICES, look_up_service(SERVICES).to_vec()));
    messages
}

/// A map from keys of `length` octets to verdicts; `key_type` is for those who list it.
fn verdict_map(
    name: &str,
    id: u32,
    key_type: u32,
    length: u32,
    elements: Vec<(Vec<u8>, DataAttribute)>,
) -> [NfTablesMessage; 2] {
    const NFT_DATA_VERDICT: u32 = 0xffff_ff00;
    let map = SetMessage {
        attributes: vec![
            SetAttribute::Table(TABLE.into()),
            SetAttribute::Name(name.into()),
            SetAttribute::Flags(SetFlags::Map),
            SetAttribute::KeyType(key_type),
            SetAttribute::KeyLen(length),
            SetAttribute::DataType(NFT_DATA_VERDICT),
            SetAttribute::Id(id),
        ],
    };
    let element = |(key, verdict)| {
        let key = SetElementAttribute::Key(DataAttribute::Value(key));
        ListAttribute::Element(vec![key, SetElementAttribute::Data(verdict)])
    };
    let elements = SetElementMessage {
        attributes: vec![
            SetElementList::Table(TABLE.into()),
            SetElementList::Set(name.into()),
            SetElementList::SetId(id),
            SetElementList::Elements(elements.into_iter().map(element).collect()),
        ],
    };
    [NfTablesMessage::NewSet(map), NfTablesMessage::NewSetElement(elements)]
}

fn chain(name: &str) -> NfTablesMessage {
    NfTablesMessage::NewChain(ChainMessage {
        attributes: vec![ChainAttribute::Table(TABLE.into()), ChainAttribute::Name(name.into())],
    })
}

fn nat_chain(name: &str, hook: InetHookNumber, priority: i32) -> NfTablesMessage {
    NfTablesMessage::NewChain(ChainMessage {
        attributes: vec![
            ChainAttribute::Table(TABLE.into()),
            ChainAttribute::Name(name.into()),
            ChainAttribute::Type("nat".into()),
            ChainAttribute::Hook(vec![
                Hook::Number(HookNumber::Inet(hook)),
                // The kernel reads the attribute as a signed number.
                Hook::Priority(priority.cast_unsigned()),
            ]),
        ],
    })
}

fn rule(chain: &str, expressions: Vec<Expressions>) -> NfTablesMessage {
    NfTablesMessage::NewRule(RuleMessage {
        attributes: vec![
            RuleAttribute::Table(TABLE.into()),
            RuleAttribute::Chain(chain.into()),
            RuleAttribute::Expressions(expressions.into_iter().map(Into::into).collect()),
        ],
    })
}

/// `[ip saddr != POD_CIDR] meta mark set meta mark or MASQUERADE_MARK`
fn mark(masquerade: Masquerade) -> Vec<Expressions> {
    let mut expressions = match masquerade {
        Masquerade::NonPods => source_is_not_in(POD_CIDR).to_vec(),
        Masquerade::EveryoneKeepingPorts => Vec::new(),
    };
    expressions.extend(set_mark(!MASQUERADE_MARK, MASQUERADE_MARK));
    expressions
}

/// `meta mark & MASQUERADE_MARK == MASQUERADE_MARK meta mark set meta mark xor MASQUERADE_MARK
/// masquerade [fully-random]`
fn masquerade_marked(who: Masquerade) -> Vec<Expressions> {
    let mut expressions = is_marked(MASQUERADE_MARK).to_vec();
    expressions.extend(set_mark(!0, MASQUERADE_MARK));
    expressions.push(masquerade(who == Masquerade::NonPods));
    expressions
}
