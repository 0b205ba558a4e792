//! A rule as the kernel's expressions, and back.

use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute, Meta, MetaKey,
    Operator, Payload, Register, Verdict as Code, VerdictAttribute,
};
use std::net::IpAddr;

use crate::node::rules::{Direction, Protocol, Rule, Verdict};

const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
/// `NFT_PAYLOAD_NETWORK_HEADER`.
pub const NETWORK_HEADER: u32 = 1;
/// `NFT_PAYLOAD_TRANSPORT_HEADER`.
pub const TRANSPORT_HEADER: u32 = 2;
const NF_ACCEPT: u32 = 1;

/// One instruction of a rule. Loads go to the register that the next comparison reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Load a fact about the packet.
    Meta(MetaKey),
    /// Load header bytes.
    Payload {
        /// Which header.
        base: u32,
        /// First byte.
        offset: u32,
        /// Number of bytes.
        length: u32,
    },
    /// Keep the loaded bits that are set here.
    Mask(Vec<u8>),
    /// Leave the rule unless the loaded bytes are these.
    Equal(Vec<u8>),
    /// Count the packet.
    Count,
    /// End of tracking.
    NoTrack,
    /// Let through.
    Accept,
}

/// Which end of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Whence.
    Source,
    /// Whither.
    Destination,
}

/// The steps that leave the rule unless the packet is of `network`'s family and its address on `side`
/// is in `network`, a prefix of `length` bits without bits beyond them.
pub fn prefix_steps(side: Side, network: IpAddr, length: u8) -> Vec<Step> {
    let (family, octets, offset) = match (network, side) {
        (IpAddr::V4(v4), Side::Source) => (NFPROTO_IPV4, v4.octets().to_vec(), 12),
        (IpAddr::V4(v4), Side::Destination) => (NFPROTO_IPV4, v4.octets().to_vec(), 16),
        (IpAddr::V6(v6), Side::Source) => (NFPROTO_IPV6, v6.octets().to_vec(), 8),
        (IpAddr::V6(v6), Side::Destination) => (NFPROTO_IPV6, v6.octets().to_vec(), 24),
    };
    let mask = (0..octets.len()).map(|octet| {
        let bits = usize::from(length).saturating_sub(octet * 8).min(8);
        !(0xff_u8.checked_shr(u32::try_from(bits).unwrap_or(0)).unwrap_or(0))
    });
    let mask: Vec<u8> = mask.collect();
    let whole = mask.iter().all(|octet| *octet == 0xff);
    let address_length = if network.is_ipv4() { 4 } else { 16 };
    let mut steps = vec![
        Step::Meta(MetaKey::Nfproto),
        Step::Equal(vec![family]),
        Step::Payload { base: NETWORK_HEADER, offset, length: address_length },
    ];
    steps.extend((!whole).then_some(Step::Mask(mask)));
    steps.push(Step::Equal(octets));
    steps
}

/// The steps that leave the rule unless the packet is of `protocol` and its port on `side` is `port`.
pub fn port_steps(protocol: Protocol, side: Side, port: u16) -> Vec<Step> {
    let number = match protocol {
        Protocol::Tcp => IPPROTO_TCP,
        Protocol::Udp => IPPROTO_UDP,
    };
    let offset = if side == Side::Source { 0 } else { 2 };
    vec![
        Step::Meta(MetaKey::L4Proto),
        Step::Equal(vec![number]),
        Step::Payload { base: TRANSPORT_HEADER, offset, length: 2 },
        Step::Equal(port.to_be_bytes().to_vec()),
    ]
}

/// The steps of a rule in a table of family `inet`.
pub fn steps(rule: &Rule) -> Vec<Step> {
    let side = match rule.direction {
        Direction::From => Side::Source,
        Direction::To => Side::Destination,
    };
    let whole = if rule.address.is_ipv4() { 32 } else { 128 };
    let mut steps = prefix_steps(side, rule.address, whole);
    steps.extend(port_steps(rule.protocol, side, rule.port));
    steps.push(Step::Count);
    steps.push(match rule.verdict {
        Verdict::NoTrack => Step::NoTrack,
        Verdict::Accept => Step::Accept,
    });
    steps
}

/// A step in the form that the kernel takes.
pub fn to_kernel(step: &Step) -> ListAttribute<ExpressionAttribute> {
    let plain = |name: &str| Expressions::Other { expression_type: name.into(), attributes: Vec::new() };
    let expression = match step {
        Step::Meta(key) => {
            Expressions::Meta(vec![Meta::DestinationRegister(Register::Reg1), Meta::Key(*key)])
        }
        Step::Payload { base, offset, length } => Expressions::Payload(vec![
            Payload::DestinationRegister(Register::Reg1),
            Payload::Base(*base),
            Payload::Offset(*offset),
            Payload::Len(*length),
        ]),
        Step::Mask(mask) => Expressions::Bitwise(vec![
            Bitwise::SourceRegister(Register::Reg1),
            Bitwise::DestinationRegister(Register::Reg1),
            Bitwise::Length(u32::try_from(mask.len()).unwrap_or(0)),
            Bitwise::Mask(DataAttribute::Value(mask.clone())),
            Bitwise::Xor(DataAttribute::Value(vec![0; mask.len()])),
        ]),
        Step::Equal(bytes) => Expressions::Cmp(vec![
            Cmp::SourceRegister(Register::Reg1),
            Cmp::Op(Operator::Equal),
            Cmp::Data(DataAttribute::Value(bytes.clone())),
        ]),
        Step::Count => plain("counter"),
        Step::NoTrack => plain("notrack"),
        Step::Accept => Expressions::Immediate(vec![
            Immediate::DestinationRegister(Register::Verdict),
            Immediate::Data(DataAttribute::Verdict(vec![VerdictAttribute::Code(Code::Other(NF_ACCEPT))])),
        ]),
    };
    expression.into()
}

/// The steps of a listed rule; `None` when it has one that none of ours has. Attributes beside the
/// ones that we set are the kernel's business (counts, and what later kernels may add).
pub fn from_kernel(list: &[ListAttribute<ExpressionAttribute>]) -> Option<Vec<Step>> {
    list.iter().map(read).collect()
}

/// One step of anybody's rule, if ours have such.
pub fn read(element: &ListAttribute<ExpressionAttribute>) -> Option<Step> {
    let ListAttribute::Element(attributes) = element else { return None };
    attributes.iter().find_map(|a| match a {
        ExpressionAttribute::Data(expression) => step(expression),
        // An expression without attributes may come without data.
        ExpressionAttribute::Name(name) if name == "notrack" => Some(Step::NoTrack),
        _ => None,
    })
}

fn step(expression: &Expressions) -> Option<Step> {
    match expression {
        Expressions::Meta(attributes) => attributes.iter().find_map(|a| match a {
            Meta::Key(key) => Some(Step::Meta(*key)),
            _ => None,
        }),
        Expressions::Payload(attributes) => payload(attributes),
        Expressions::Cmp(attributes) => compared(attributes),
        Expressions::Bitwise(attributes) => attributes.iter().find_map(|a| match a {
            Bitwise::Mask(DataAttribute::Value(mask)) => Some(Step::Mask(mask.clone())),
            _ => None,
        }),
        Expressions::Immediate(attributes) => attributes
            .contains(&Immediate::Data(DataAttribute::Verdict(vec![VerdictAttribute::Code(Code::Other(
                NF_ACCEPT,
            ))])))
            .then_some(Step::Accept),
        Expressions::Other { expression_type, .. } if expression_type == "counter" => Some(Step::Count),
        _ => None,
    }
}

fn payload(attributes: &[Payload]) -> Option<Step> {
    let find = |pick: fn(&Payload) -> Option<u32>| attributes.iter().find_map(pick);
    Some(Step::Payload {
        base: find(|a| match a {
            Payload::Base(base) => Some(*base),
            _ => None,
        })?,
        offset: find(|a| match a {
            Payload::Offset(offset) => Some(*offset),
            _ => None,
        })?,
        length: find(|a| match a {
            Payload::Len(length) => Some(*length),
            _ => None,
        })?,
    })
}

fn compared(attributes: &[Cmp]) -> Option<Step> {
    if !attributes.contains(&Cmp::Op(Operator::Equal)) {
        return None;
    }
    attributes.iter().find_map(|a| match a {
        Cmp::Data(DataAttribute::Value(bytes)) => Some(Step::Equal(bytes.clone())),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::rules::{Chain, Table};

    #[test]
    fn what_goes_to_the_kernel_is_read_back() {
        for (address, direction, verdict) in [
            ("169.254.20.10", Direction::To, Verdict::NoTrack),
            ("fd00::10", Direction::From, Verdict::Accept),
        ] {
            let rule = Rule {
                table: Table::Raw,
                chain: Chain::Output,
                protocol: Protocol::Udp,
                direction,
                address: address.parse().unwrap(),
                port: 53,
                verdict,
            };
            let steps = steps(&rule);
            let list: Vec<_> = steps.iter().map(to_kernel).collect();
            assert_eq!(from_kernel(&list), Some(steps));
        }
    }

    #[test]
    fn a_foreign_expression_is_not_read_as_ours() {
        let not_equal =
            Expressions::Cmp(vec![Cmp::Op(Operator::NotEqual), Cmp::Data(DataAttribute::Value(vec![1]))]);
        assert_eq!(from_kernel(&[not_equal.into()]), None);
        let drop = Expressions::Immediate(vec![Immediate::Data(DataAttribute::Verdict(vec![
            VerdictAttribute::Code(Code::Other(0)),
        ]))]);
        assert_eq!(from_kernel(&[drop.into()]), None);
    }
}
