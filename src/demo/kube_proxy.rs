//! What kube-proxy's nftables mode installs for two Services with one endpoint, over netlink.
//!
//! Tracked packets to a ClusterIP are rewritten to the endpoint (DNAT), packets of non-pods also get
//! the node's address (masquerade), so that the answers come back through the node.

use std::net::Ipv4Addr;

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, ChainAttribute, ChainMessage, Cmp, DataAttribute, Expressions, Hook, HookNumber, Immediate,
    InetHookNumber, Meta, MetaKey, NfTablesMessage, Operator, Payload, Register, RuleAttribute, RuleMessage,
    TableAttribute, TableMessage, Verdict, VerdictAttribute,
};

use super::netfilter::Netfilter;
use super::network::{KUBE_DNS, KUBE_DNS_VIP, UPSTREAM_VIP};
use super::{DemoError, Namespace};

const TABLE: &str = "kube-proxy";
const SERVICES: &str = "services";
const DNS_PORT: u16 = 53;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// The first two octets of every pod's address.
const POD_CIDR: [u8; 2] = [10, 244];
/// The mark that asks for masquerading, kube-proxy's default.
const MASQUERADE_MARK: u32 = 0x4000;
/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`.
const FULLY_RANDOM: u32 = 1 << 4;

/// Installs the rules; they end with the node's namespace.
pub(super) fn install(node: &Namespace) -> Result<(), DemoError> {
    node.run(|| Netfilter::open()?.add_all(ruleset()))?.map_err(|source| DemoError::Netfilter {
        step: "install the Service rules (is nf_tables with nat in this kernel?)",
        source,
    })
}

fn ruleset() -> Vec<NfTablesMessage> {
    let name = TableAttribute::Name(TABLE.into());
    let mut messages = vec![
        NfTablesMessage::NewTable(TableMessage { attributes: vec![name] }),
        NfTablesMessage::NewChain(ChainMessage {
            attributes: vec![ChainAttribute::Table(TABLE.into()), ChainAttribute::Name(SERVICES.into())],
        }),
        // dstnat, the priority of DNAT on the way out, and srcnat.
        nat_chain("prerouting", InetHookNumber::PreRouting, -100),
        nat_chain("output", InetHookNumber::LocalOut, -100),
        nat_chain("postrouting", InetHookNumber::PostRouting, 100),
        rule("prerouting", vec![jump(SERVICES)]),
        rule("output", vec![jump(SERVICES)]),
        rule("postrouting", masquerade_marked()),
    ];
    for service in [KUBE_DNS_VIP, UPSTREAM_VIP] {
        messages.push(rule(SERVICES, mark_non_pods(service)));
        for protocol in [UDP, TCP] {
            messages.push(rule(SERVICES, to_endpoint(service, protocol, KUBE_DNS)));
        }
    }
    messages
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

/// `ip daddr SERVICE ip saddr != POD_CIDR meta mark set meta mark or MASQUERADE_MARK`
fn mark_non_pods(service: Ipv4Addr) -> Vec<Expressions> {
    [
        destination_is(service).to_vec(),
        vec![network_header(12, 2), compare(Operator::NotEqual, &POD_CIDR)],
        set_mark(!MASQUERADE_MARK, MASQUERADE_MARK).to_vec(),
    ]
    .concat()
}

/// `ip daddr SERVICE meta l4proto PROTOCOL th dport 53 dnat to ENDPOINT:53`
fn to_endpoint(service: Ipv4Addr, protocol: u8, endpoint: Ipv4Addr) -> Vec<Expressions> {
    let mut rule = destination_is(service).to_vec();
    rule.extend([
        load_meta(MetaKey::L4Proto),
        compare(Operator::Equal, &[protocol]),
        transport_header(2, 2),
        compare(Operator::Equal, &DNS_PORT.to_be_bytes()),
        immediate(Register::Reg1, &endpoint.octets()),
        immediate(Register::Reg2, &DNS_PORT.to_be_bytes()),
        dnat(),
    ]);
    rule
}

/// `meta mark & MASQUERADE_MARK == MASQUERADE_MARK meta mark set meta mark xor MASQUERADE_MARK
/// masquerade fully-random`
fn masquerade_marked() -> Vec<Expressions> {
    let mut rule = vec![
        load_meta(MetaKey::Mark),
        bitwise(MASQUERADE_MARK, 0),
        compare(Operator::Equal, &MASQUERADE_MARK.to_ne_bytes()),
    ];
    rule.extend(set_mark(!0, MASQUERADE_MARK));
    rule.push(masquerade());
    rule
}

fn destination_is(address: Ipv4Addr) -> [Expressions; 2] {
    [network_header(16, 4), compare(Operator::Equal, &address.octets())]
}

/// Mark := (mark & `mask`) ^ `xor`.
fn set_mark(mask: u32, xor: u32) -> [Expressions; 3] {
    let store = vec![Meta::Key(MetaKey::Mark), Meta::SourceRegister(Register::Reg1)];
    [load_meta(MetaKey::Mark), bitwise(mask, xor), Expressions::Meta(store)]
}

fn load_meta(key: MetaKey) -> Expressions {
    Expressions::Meta(vec![Meta::Key(key), Meta::DestinationRegister(Register::Reg1)])
}

fn network_header(offset: u32, length: u32) -> Expressions {
    payload(1, offset, length)
}

fn transport_header(offset: u32, length: u32) -> Expressions {
    payload(2, offset, length)
}

fn payload(base: u32, offset: u32, length: u32) -> Expressions {
    Expressions::Payload(vec![
        Payload::DestinationRegister(Register::Reg1),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(length),
    ])
}

fn compare(operator: Operator, value: &[u8]) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(value.to_vec())),
    ])
}

/// Marks are host-endian in a register.
fn bitwise(mask: u32, xor: u32) -> Expressions {
    let value = |number: u32| DataAttribute::Value(number.to_ne_bytes().to_vec());
    Expressions::Bitwise(vec![
        Bitwise::SourceRegister(Register::Reg1),
        Bitwise::DestinationRegister(Register::Reg1),
        Bitwise::Length(4),
        Bitwise::Mask(value(mask)),
        Bitwise::Xor(value(xor)),
    ])
}

fn immediate(register: Register, value: &[u8]) -> Expressions {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(register),
        Immediate::Data(DataAttribute::Value(value.to_vec())),
    ])
}

fn jump(chain: &str) -> Expressions {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(vec![
            VerdictAttribute::Code(Verdict::Jump),
            VerdictAttribute::Chain(chain.into()),
        ])),
    ])
}

/// Rewrites the destination to the address in register 1 and the port in register 2.
fn dnat() -> Expressions {
    const TYPE: u16 = 1;
    const FAMILY: u16 = 2;
    const ADDRESS_REGISTER: u16 = 3;
    const PORT_REGISTER: u16 = 5;
    // NFT_NAT_DNAT and NFPROTO_IPV4.
    let values = [
        (TYPE, 1),
        (FAMILY, 2),
        (ADDRESS_REGISTER, u32::from(Register::Reg1)),
        (PORT_REGISTER, u32::from(Register::Reg2)),
    ];
    other("nat", &values)
}

fn masquerade() -> Expressions {
    const FLAGS: u16 = 1;
    other("masq", &[(FLAGS, FULLY_RANDOM)])
}

/// An expression that the netlink crate has no type for; its attributes are big-endian.
fn other(expression_type: &str, values: &[(u16, u32)]) -> Expressions {
    let attribute = |&(kind, value): &(u16, u32)| DefaultNla::new(kind, value.to_be_bytes().into());
    Expressions::Other {
        expression_type: expression_type.into(),
        attributes: values.iter().map(attribute).collect(),
    }
}
