//! The twelve octets every message starts with (RFC 1035 §4.1.1), and the numbers of the registries.

use std::fmt;

/// Octets of a header.
pub const HEADER: usize = 12;

/// The second 16 bits of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags(pub u16);

impl Flags {
    /// The message is a response.
    pub const QR: u16 = 0x8000;
    /// Authoritative answer.
    pub const AA: u16 = 0x0400;
    /// Truncated.
    pub const TC: u16 = 0x0200;
    /// Recursion desired.
    pub const RD: u16 = 0x0100;
    /// Recursion available.
    pub const RA: u16 = 0x0080;
    /// Authentic data (RFC 4035 §3.1.6).
    pub const AD: u16 = 0x0020;
    /// Checking disabled (RFC 4035 §3.1.6).
    pub const CD: u16 = 0x0010;
    /// Where the opcode is.
    pub const OPCODE: u16 = 0x7800;
    /// Where the low four bits of the response code are.
    pub const RCODE: u16 = 0x000f;

    /// The flags of a message of at least four octets.
    #[inline]
    pub fn of(message: &[u8]) -> Flags {
        Flags(u16_at(message, 2).unwrap_or(0))
    }

    /// Whether any of `bits` is set.
    #[inline]
    pub fn has(self, bits: u16) -> bool {
        self.0 & bits != 0
    }

    /// The opcode (RFC 1035 §4.1.1).
    #[inline]
    pub fn opcode(self) -> Opcode {
        Opcode(((self.0 & Flags::OPCODE) >> 11) as u8)
    }

    /// The low four bits of the response code.
    #[inline]
    pub fn rcode(self) -> Rcode {
        Rcode(self.0 & Flags::RCODE)
    }
}

/// Kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opcode(pub u8);

impl Opcode {
    /// A standard query.
    pub const QUERY: Opcode = Opcode(0);
    /// A zone change notification (RFC 1996).
    pub const NOTIFY: Opcode = Opcode(4);
}

/// Response code, the OPT record's upper eight bits included (RFC 6891 §6.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rcode(pub u16);

impl Rcode {
    /// No error.
    pub const NOERROR: Rcode = Rcode(0);
    /// Format error.
    pub const FORMERR: Rcode = Rcode(1);
    /// Server failure.
    pub const SERVFAIL: Rcode = Rcode(2);
    /// The name does not exist.
    pub const NXDOMAIN: Rcode = Rcode(3);
    /// Not implemented.
    pub const NOTIMP: Rcode = Rcode(4);
    /// Refused.
    pub const REFUSED: Rcode = Rcode(5);
    /// Unsupported EDNS version (RFC 6891 §9).
    pub const BADVERS: Rcode = Rcode(16);
}

impl fmt::Display for Rcode {
    /// The IANA name; a number for the unassigned.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 11] = [
            "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET",
            "NXRRSET", "NOTAUTH", "NOTZONE",
        ];
        match (NAMES.get(usize::from(self.0)), self.0) {
            (Some(name), _) => f.write_str(name),
            (None, 16) => f.write_str("BADVERS"),
            (None, other) => write!(f, "{other}"),
        }
    }
}

/// Record types that mean something to Doorstep itself.
pub mod record_type {
    /// IPv4 address.
    pub const A: u16 = 1;
    /// Delegation.
    pub const NS: u16 = 2;
    /// Start of authority.
    pub const SOA: u16 = 6;
    /// Name of an address.
    pub const PTR: u16 = 12;
    /// Host information; what `loop` probes ask for.
    pub const HINFO: u16 = 13;
    /// IPv6 address (RFC 3596).
    pub const AAAA: u16 = 28;
    /// A service's host and port (RFC 2782).
    pub const SRV: u16 = 33;
    /// The EDNS pseudo record (RFC 6891).
    pub const OPT: u16 = 41;
    /// Delegation signer, which lives in the parent zone (RFC 4035 §3.1.4.1).
    pub const DS: u16 = 43;
    /// Signature (RFC 4034 §3).
    pub const RRSIG: u16 = 46;
    /// Incremental transfer (RFC 1995).
    pub const IXFR: u16 = 251;
    /// Zone transfer (RFC 5936).
    pub const AXFR: u16 = 252;
}

/// The 16 bits at `offset`, or `None` past the end.
#[inline]
pub(super) fn u16_at(message: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_be_bytes(message.get(offset..offset + 2)?.try_into().ok()?))
}

/// The 32 bits at `offset`, or `None` past the end.
#[inline]
pub(super) fn u32_at(message: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_be_bytes(message.get(offset..offset + 4)?.try_into().ok()?))
}

/// Offset after the possibly compressed name at `at`; never follows a pointer.
///
/// `None` when the name runs past the end, has a label type other than 00 and 11 (RFC 6891 §5 ended
/// the others), or spells more than 255 octets before its pointer.
#[inline]
pub(super) fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    let start = at;
    loop {
        let len = *message.get(at)?;
        match len {
            0 => return (at + 1 - start <= super::name::MAX_NAME).then_some(at + 1),
            1..=63 => at += 1 + usize::from(len),
            192.. => {
                return (at + 2 <= message.len() && at - start < super::name::MAX_NAME).then_some(at + 2);
            }
            _ => return None,
        }
        if at - start > super::name::MAX_NAME {
            return None;
        }
    }
}

/// A resource record's fixed part, as found in a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    /// Offset of the owner name.
    pub start: usize,
    /// Offset of the type field; the TTL stands four octets on.
    pub fixed: usize,
    /// Type.
    pub rtype: u16,
    /// Offset of the RDATA.
    pub rdata: usize,
    /// Offset after the RDATA.
    pub end: usize,
}

impl Record {
    /// The record at `start`, or `None` when it does not fit the message.
    #[inline]
    pub fn at(message: &[u8], start: usize) -> Option<Record> {
        let fixed = skip_name(message, start)?;
        let rtype = u16_at(message, fixed)?;
        let rdata = fixed + 10;
        let end = rdata + usize::from(u16_at(message, fixed + 8)?);
        (end <= message.len()).then_some(Record { start, fixed, rtype, rdata, end })
    }

    /// Offset of the TTL field.
    pub fn ttl(&self) -> usize {
        self.fixed + 4
    }
}
