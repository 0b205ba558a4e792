//! IPv6 addresses made of IPv4 addresses (DNS64, RFC 6147, with the semantics of CoreDNS's `dns64`).
//!
//! Unlike CoreDNS, who validates for himself (CD and DO) gets what there is (RFC 6147 §5.5): he would find what is
//! made here bogus.

use std::net::Ipv6Addr;

use crate::wire::{Flags, Message, Opcode, Query, Rcode, ResourceRecord, record_type};

/// `dns64 [PREFIX] { prefix PREFIX; translate_all; allow_ipv4 }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns64 {
    /// What stands before an IPv4 address.
    pub prefix: Prefix,
    /// Names that have IPv6 addresses are translated, too.
    pub translate_all: bool,
    /// Clients that ask over IPv4 get them, too.
    pub allow_ipv4: bool,
}

/// The front of IPv6 addresses that stand for IPv4 addresses (RFC 6052 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    address: [u8; 16],
    /// In octets.
    len: usize,
}

impl Default for Dns64 {
    fn default() -> Dns64 {
        Dns64 { prefix: Prefix::WELL_KNOWN, translate_all: false, allow_ipv4: false }
    }
}

impl Prefix {
    /// `64:ff9b::/96` (RFC 6052 §2.1).
    const WELL_KNOWN: Prefix =
        Prefix { address: Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0).octets(), len: 12 };

    /// `None` unless `bits` are a whole number of octets, 32 to 96.
    pub fn new(address: Ipv6Addr, bits: u8) -> Option<Prefix> {
        let whole = (32..=96).contains(&bits) && bits.is_multiple_of(8);
        whole.then(|| Prefix { address: address.octets(), len: usize::from(bits / 8) })
    }

    /// The IPv6 address for `v4`. Octet 8 is left zero (RFC 6052 §2.2).
    fn embed(&self, v4: [u8; 4]) -> [u8; 16] {
        let mut address = [0; 16];
        address[..self.len].copy_from_slice(&self.address[..self.len]);
        let places = (self.len..16).filter(|place| *place != 8);
        places.zip(v4).for_each(|(place, octet)| address[place] = octet);
        address
    }
}

/// The TTL of what is made where no SOA tells for how long there is no AAAA record (RFC 6147 §5.1.7).
const TTL_WITHOUT_SOA: u32 = 600;

impl Dns64 {
    /// What to ask next, given the `reply` to `message`: the name's IPv4 addresses. `None`: the reply will do.
    pub(super) fn next_question(&self, message: &[u8], reply: &[u8]) -> Option<Vec<u8>> {
        let query = Query::parse(message).ok()?;
        let concerned = query.flags().opcode() == Opcode::QUERY
            && (query.qtype(), query.qclass()) == (record_type::AAAA, CLASS_IN);
        if !concerned || query.flags().has(Flags::CD) && query.dnssec_ok() {
            return None;
        }
        let reply = Message::read(reply)?;
        let has_address = reply.sections[0].iter().any(is_address);
        // A name that does not exist has no addresses; any other failure is as good as none (RFC 6147 §5.1.2).
        if reply.rcode() == Rcode::NXDOMAIN || has_address && !self.translate_all {
            return None;
        }
        ask_for(message, record_type::A)
    }

    /// The reply to `message` with addresses made of those in the reply `of_a`. Where there are none, it is
    /// `of_aaaa`, or the failure to find any.
    pub(super) fn synthesize(&self, message: &[u8], of_aaaa: Vec<u8>, of_a: &[u8]) -> Vec<u8> {
        self.made(message, &of_aaaa, of_a).unwrap_or(of_aaaa)
    }

    fn made(&self, message: &[u8], of_aaaa: &[u8], of_a: &[u8]) -> Option<Vec<u8>> {
        let query = Message::read(message)?;
        let mut made = Message::read(of_a)?;
        let lifetime = Message::read(of_aaaa).as_ref().and_then(denial_lifetime).unwrap_or(TTL_WITHOUT_SOA);
        let mut any = false;
        for record in &mut made.sections[0] {
            let Ok(v4) = <[u8; 4]>::try_from(record.rdata.as_slice()) else { continue };
            if record.rtype == record_type::A {
                any = true;
                record.rtype = record_type::AAAA;
                record.ttl = record.ttl.min(lifetime);
                record.rdata = self.prefix.embed(v4).to_vec();
            }
        }
        if !any && matches!(made.rcode(), Rcode::NOERROR | Rcode::NXDOMAIN) {
            return None;
        }
        // Nobody has authority for what is made here, and nobody can have validated it.
        made.flags.0 &= !(Flags::AA | Flags::AD);
        made.question = query.question;
        made.to_octets()
    }
}

/// Whether `record` has an IPv6 address that is not one of IPv4 in other clothes (RFC 6147 §5.1.4).
fn is_address(record: &ResourceRecord) -> bool {
    let address = <[u8; 16]>::try_from(record.rdata.as_slice()).map(Ipv6Addr::from);
    record.rtype == record_type::AAAA && address.is_ok_and(|address| address.to_ipv4_mapped().is_none())
}

/// The Internet (RFC 1035 §3.2.4).
const CLASS_IN: u16 = 1;

/// `message` for another type.
fn ask_for(message: &[u8], qtype: u16) -> Option<Vec<u8>> {
    let mut query = Message::read(message)?;
    let (_, fixed) = query.question.split_last_chunk_mut::<4>()?;
    fixed[..2].copy_from_slice(&qtype.to_be_bytes());
    query.to_octets()
}

/// For how long there is nothing, if a SOA record says so (RFC 2308 §5).
fn denial_lifetime(reply: &Message) -> Option<u32> {
    let soa: &ResourceRecord = reply.sections[1].iter().find(|record| record.rtype == record_type::SOA)?;
    let minimum = soa.rdata.last_chunk().map_or(u32::MAX, |minimum| u32::from_be_bytes(*minimum));
    Some(soa.ttl.min(minimum))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message with these flags, `(type, TTL, RDATA)` in its answer section and an OPT with DO or without.
    fn message(flags: u16, qtype: u16, answers: &[(u16, u32, &[u8])], dnssec_ok: bool) -> Vec<u8> {
        let owner = b"\x01a\x04test\0".to_vec();
        let question = [&owner[..], &qtype.to_be_bytes(), &[0, 1]].concat();
        let record = |rtype, ttl, rdata: &[u8]| ResourceRecord {
            owner: owner.clone(),
            rtype,
            class: CLASS_IN,
            ttl,
            rdata: rdata.to_vec(),
        };
        let answers = answers.iter().map(|(rtype, ttl, rdata)| record(*rtype, *ttl, rdata)).collect();
        let opt = ResourceRecord {
            owner: vec![0],
            rtype: record_type::OPT,
            class: 1232,
            ttl: u32::from(dnssec_ok) << 15,
            rdata: Vec::new(),
        };
        let sections = [answers, Vec::new(), vec![opt]];
        Message { id: [0; 2], flags: Flags(flags), question, sections }.to_octets().unwrap()
    }

    const AAAA: u16 = record_type::AAAA;

    /// RFC 6147 §5.1.4: with an address that stands for an IPv4 one a client gets nowhere over IPv6.
    #[test]
    fn addresses_that_are_mapped_are_none() {
        let query = message(Flags::RD, AAAA, &[], false);
        let mapped = std::net::Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().octets();
        let other = Ipv6Addr::LOCALHOST.octets();
        let next = |addresses: &[&[u8]]| {
            let answers: Vec<_> = addresses.iter().map(|address| (AAAA, 60, *address)).collect();
            Dns64::default().next_question(&query, &message(Flags::QR, AAAA, &answers, false)).is_some()
        };
        assert!(next(&[]) && next(&[&mapped]) && next(&[&mapped, &mapped]));
        assert!(!next(&[&other]) && !next(&[&mapped, &other]));
    }

    /// RFC 6147 §3 and §5.5: who validates for himself would find what is made here bogus.
    #[test]
    fn who_validates_gets_what_there_is() {
        let nothing = message(Flags::QR, AAAA, &[], false);
        for (flags, dnssec_ok, expected) in
            [(0, false, true), (0, true, true), (Flags::CD, false, true), (Flags::CD, true, false)]
        {
            let query = message(Flags::RD | flags, AAAA, &[], dnssec_ok);
            let next = Dns64::default().next_question(&query, &nothing);
            assert_eq!(next.is_some(), expected, "{flags:x} {dnssec_ok}");
        }
    }

    #[test]
    fn what_is_made_is_nobodys_word() {
        let query = message(Flags::RD, AAAA, &[], true);
        let nothing = message(Flags::QR, AAAA, &[], true);
        let flags = Flags::QR | Flags::AA | Flags::AD;
        let of_a = message(flags, 1, &[(1, 9000, &[192, 0, 2, 33]), (1, 9, &[192, 0, 2, 34])], true);
        let made = Message::read(&Dns64::default().synthesize(&query, nothing, &of_a)).unwrap();
        assert_eq!((made.flags.0, &made.question[8..]), (Flags::QR, &[0, 28, 0, 1][..]));
        let records: Vec<_> = made.sections[0].iter().map(|made| (made.rtype, made.ttl)).collect();
        assert_eq!(records, [(AAAA, 600), (AAAA, 9)]);
    }

    /// The examples of RFC 6052 §2.4.
    #[test]
    fn addresses_are_embedded() {
        for (prefix, bits, expected) in [
            ("2001:db8::", 32, "2001:db8:c000:221::"),
            ("2001:db8:100::", 40, "2001:db8:1c0:2:21::"),
            ("2001:db8:122::", 48, "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::", 56, "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::", 64, "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::", 96, "2001:db8:122:344::192.0.2.33"),
            ("64:ff9b::1", 96, "64:ff9b::192.0.2.33"),
        ] {
            let prefix = Prefix::new(prefix.parse().unwrap(), bits).unwrap();
            let expected: Ipv6Addr = expected.parse().unwrap();
            assert_eq!(Ipv6Addr::from(prefix.embed([192, 0, 2, 33])), expected, "/{bits}");
        }
        for bits in [0, 24, 36, 97, 104, 128] {
            assert_eq!(Prefix::new(Ipv6Addr::LOCALHOST, bits), None, "/{bits}");
        }
    }
}
