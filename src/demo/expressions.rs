//! nf_tables expressions: what a rule of the Service rules is made of.

use std::net::Ipv4Addr;

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, Expressions, Immediate, Lookup, Meta, MetaKey, Operator, Payload, Register,
    Verdict, VerdictAttribute,
};

/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`.
const FULLY_RANDOM: u32 = 1 << 4;

/// Leaves the rule unless `ip daddr` is `address`.
pub(super) fn destination_is(address: Ipv4Addr) -> [Expressions; 2] {
    [network_header(Register::Reg1, 16, 4), compare(Operator::Equal, &address.octets())]
}

/// Leaves the rule if `ip saddr` begins with `octets`.
pub(super) fn source_is_not_in(octets: [u8; 2]) -> [Expressions; 2] {
    [network_header(Register::Reg1, 12, 2), compare(Operator::NotEqual, &octets)]
}

/// Leaves the rule unless the packet is `protocol` to `port`.
pub(super) fn service_is(protocol: u8, port: u16) -> [Expressions; 4] {
    [
        load_meta(MetaKey::L4Proto, Register::Reg1),
        compare(Operator::Equal, &[protocol]),
        transport_header(Register::Reg1, 2, 2),
        compare(Operator::Equal, &port.to_be_bytes()),
    ]
}

/// `ip daddr . meta l4proto . th dport vmap @MAP`: the key's parts each fill four octets.
pub(super) fn look_up_service(map: &str) -> [Expressions; 4] {
    [
        network_header(Register::Reg32_00, 16, 4),
        load_meta(MetaKey::L4Proto, Register::Reg32_01),
        transport_header(Register::Reg32_02, 2, 2),
        look_up(map, Register::Reg32_00),
    ]
}

/// `numgen random mod COUNT vmap @MAP`
pub(super) fn look_up_random(map: &str, count: u32) -> [Expressions; 2] {
    [random(count), look_up(map, Register::Reg1)]
}

/// Leaves the rule but in one of `count` cases.
pub(super) fn one_in(count: u32) -> [Expressions; 2] {
    [random(count), compare(Operator::Equal, &0u32.to_ne_bytes())]
}

/// Leaves the rule unless the mark has the bit `mark`.
pub(super) fn is_marked(mark: u32) -> [Expressions; 3] {
    [
        load_meta(MetaKey::Mark, Register::Reg1),
        bitwise(mark, 0),
        compare(Operator::Equal, &mark.to_ne_bytes()),
    ]
}

/// Mark := (mark & `mask`) ^ `xor`.
pub(super) fn set_mark(mask: u32, xor: u32) -> [Expressions; 3] {
    let store = vec![Meta::Key(MetaKey::Mark), Meta::SourceRegister(Register::Reg1)];
    [load_meta(MetaKey::Mark, Register::Reg1), bitwise(mask, xor), Expressions::Meta(store)]
}

/// Goes on in `chain` and comes back.
pub(super) fn jump(chain: &str) -> Expressions {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(verdict(Verdict::Jump, chain)),
    ])
}

/// What a map holds that sends packets to `chain`.
pub(super) fn goto(chain: &str) -> DataAttribute {
    verdict(Verdict::Goto, chain)
}

/// Rewrites the destination.
pub(super) fn dnat(endpoint: Ipv4Addr, port: u16) -> [Expressions; 3] {
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
    [
        immediate(Register::Reg1, &endpoint.octets()),
        immediate(Register::Reg2, &port.to_be_bytes()),
        other("nat", &values),
    ]
}

/// Gives the packet the node's address; with `fully_random`, and a port drawn by lot (`--random-fully`).
pub(super) fn masquerade(fully_random: bool) -> Expressions {
    const FLAGS: u16 = 1;
    match fully_random {
        true => other("masq", &[(FLAGS, FULLY_RANDOM)]),
        false => other("masq", &[]),
    }
}

fn verdict(code: Verdict, chain: &str) -> DataAttribute {
    DataAttribute::Verdict(vec![VerdictAttribute::Code(code), VerdictAttribute::Chain(chain.into())])
}

fn load_meta(key: MetaKey, register: Register) -> Expressions {
    Expressions::Meta(vec![Meta::Key(key), Meta::DestinationRegister(register)])
}

fn network_header(register: Register, offset: u32, length: u32) -> Expressions {
    payload(register, 1, offset, length)
}

fn transport_header(register: Register, offset: u32, length: u32) -> Expressions {
    payload(register, 2, offset, length)
}

fn payload(register: Register, base: u32, offset: u32, length: u32) -> Expressions {
    Expressions::Payload(vec![
        Payload::DestinationRegister(register),
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

/// A host-endian number below `modulus`, in register 1.
fn random(modulus: u32) -> Expressions {
    const REGISTER: u16 = 1;
    const MODULUS: u16 = 2;
    const TYPE: u16 = 3;
    // NFT_NG_RANDOM.
    other("numgen", &[(REGISTER, u32::from(Register::Reg1)), (MODULUS, modulus), (TYPE, 1)])
}

fn look_up(map: &str, key: Register) -> Expressions {
    Expressions::Lookup(vec![
        Lookup::Set(map.into()),
        Lookup::SourceRegister(key),
        Lookup::DestinationRegister(Register::Verdict),
    ])
}

/// An expression that the netlink crate has no type for; its attributes are big-endian.
fn other(expression_type: &str, values: &[(u16, u32)]) -> Expressions {
    let attribute = |&(kind, value): &(u16, u32)| DefaultNla::new(kind, value.to_be_bytes().into());
    Expressions::Other {
        expression_type: expression_type.into(),
        attributes: values.iter().map(attribute).collect(),
    }
}
