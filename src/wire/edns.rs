//! The OPT record (RFC 6891 §6.1.2).

use super::header::{Rcode, Record, record_type, u16_at};

/// What an OPT record says about its sender. Options are checked for shape and not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edns {
    /// Octets of UDP payload its sender takes.
    pub udp_size: u16,
    /// EDNS version; only 0 exists.
    pub version: u8,
    /// DNSSEC records are welcome (RFC 3225).
    pub dnssec_ok: bool,
}

/// Why an answer is not what it could be (RFC 8914 §4), for those who sent an OPT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtendedError(pub u16);

impl ExtendedError {
    /// The answer has expired, and nothing newer could be had.
    pub const STALE_ANSWER: ExtendedError = ExtendedError(3);
    /// The same, of an NXDOMAIN.
    pub const STALE_NXDOMAIN_ANSWER: ExtendedError = ExtendedError(19);
    /// No upstream answered.
    pub const NO_REACHABLE_AUTHORITY: ExtendedError = ExtendedError(22);
    /// The network failed on the way to the upstream.
    pub const NETWORK_ERROR: ExtendedError = ExtendedError(23);

    /// What to tell about an expired answer with `rcode`.
    #[inline]
    pub fn of_stale(rcode: Rcode) -> ExtendedError {
        if rcode == Rcode::NXDOMAIN {
            ExtendedError::STALE_NXDOMAIN_ANSWER
        } else {
            ExtendedError::STALE_ANSWER
        }
    }

    /// Octets of the option that carries it.
    const LEN: usize = 6;
    /// Its option's code.
    const OPTION: u16 = 15;
}

impl Edns {
    /// Octets of an OPT record without options.
    pub const LEN: usize = 11;
    /// The payload size we offer upstream: fits every path without fragments (DNS Flag Day 2020).
    pub const UPSTREAM_UDP_SIZE: u16 = 1232;

    /// Octets that who sent this OPT, or none, takes in one UDP datagram: 512 without EDNS (RFC 1035 §4.2.1),
    /// and values below that count as 512 (RFC 6891 §6.2.3).
    #[inline(always)]
    pub fn udp_limit(edns: Option<Edns>) -> usize {
        edns.map_or(512, |edns| usize::from(edns.udp_size).max(512))
    }

    /// Reads an OPT record; `None` when its options overrun it.
    #[inline]
    pub(super) fn read(message: &[u8], record: &Record) -> Option<Edns> {
        let mut at = record.rdata;
        while at < record.end {
            at += 4 + usize::from(u16_at(message, at + 2)?);
        }
        if at != record.end {
            return None;
        }
        let udp_size = u16_at(message, record.fixed + 2)?;
        let version = *message.get(record.fixed + 5)?;
        let dnssec_ok = message.get(record.fixed + 6)? & 0x80 != 0;
        Some(Edns { udp_size, version, dnssec_ok })
    }

    /// The upper eight bits of the response code that an OPT record carries.
    pub(super) fn extended_rcode(message: &[u8], record: &Record) -> u16 {
        message.get(record.fixed + 4).copied().map_or(0, u16::from)
    }

    /// The record's octets, with the upper eight bits of a response code.
    #[inline]
    pub(super) fn octets(self, extended_rcode: u8) -> [u8; Edns::LEN] {
        let [type_high, type_low] = record_type::OPT.to_be_bytes();
        let [size_high, size_low] = self.udp_size.to_be_bytes();
        let flags = if self.dnssec_ok { 0x80 } else { 0 };
        [0, type_high, type_low, size_high, size_low, extended_rcode, self.version, flags, 0, 0, 0]
    }

    /// Octets of an OPT record that carries `error`.
    #[inline]
    pub(super) fn len_with(error: Option<ExtendedError>) -> usize {
        Edns::LEN + if error.is_some() { ExtendedError::LEN } else { 0 }
    }

    /// Writes the record, which tells `error`, to the front of `out` and returns its length; 0 if it has
    /// no room.
    #[inline]
    pub(super) fn write(self, extended_rcode: u8, error: Option<ExtendedError>, out: &mut [u8]) -> usize {
        let Some((record, behind)) = out.split_first_chunk_mut::<{ Edns::LEN }>() else {
            return 0;
        };
        *record = self.octets(extended_rcode);
        let (Some(error), Some(option)) = (error, behind.first_chunk_mut::<{ ExtendedError::LEN }>()) else {
            return Edns::LEN;
        };
        record[Edns::LEN - 1] = ExtendedError::LEN as u8;
        let [code_high, code_low] = ExtendedError::OPTION.to_be_bytes();
        let [error_high, error_low] = error.0.to_be_bytes();
        *option = [code_high, code_low, 0, 2, error_high, error_low];
        Edns::LEN + ExtendedError::LEN
    }

    /// Appends the record.
    pub(super) fn append(self, extended_rcode: u8, message: &mut Vec<u8>) {
        message.extend_from_slice(&self.octets(extended_rcode));
    }
}
