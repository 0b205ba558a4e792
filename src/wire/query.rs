//! The only way in for a client's bytes.

use super::edns::Edns;
use super::header::{Flags, HEADER, Opcode, Record, record_type, u16_at};
use super::name::MAX_NAME;

/// A request that passed the acceptance rules: one question, whole records, at most one OPT.
///
/// The rules are those of CoreDNS's listener (one question, at most one answer and one authority
/// record, at most two additional ones), and stricter where RFC 6891 §6.1.1 is: a second OPT, or an
/// OPT with an owner name, is a format error, and so is a compressed question name.
#[derive(Debug, Clone, Copy)]
pub struct Query<'p> {
    packet: &'p [u8],
    /// Offset after the question.
    question_end: usize,
    edns: Option<Edns>,
    /// Where the OPT record stands; empty without one.
    opt: (usize, usize),
    /// Offset after the last record.
    end: usize,
}

/// Why bytes are not a [`Query`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// Fewer than twelve octets: there is no id to answer to.
    TooShort,
    /// QR is set. Answering a response could loop for ever between two servers.
    Response,
    /// An opcode nobody here serves: answer NOTIMP.
    NotImplemented,
    /// Broken: answer FORMERR.
    Malformed,
}

impl<'p> Query<'p> {
    /// Reads a request.
    #[inline]
    pub fn parse(packet: &'p [u8]) -> Result<Query<'p>, Rejected> {
        let Some(header) = packet.first_chunk::<HEADER>() else {
            return Err(Rejected::TooShort);
        };
        let flags = Flags(u16::from_be_bytes([header[2], header[3]]));
        if flags.has(Flags::QR) {
            return Err(Rejected::Response);
        }
        if flags.has(Flags::OPCODE) && flags.opcode() != Opcode::NOTIFY {
            return Err(Rejected::NotImplemented);
        }
        let question_end = question_end(packet).ok_or(Rejected::Malformed)?;
        let query =
            Query { packet, question_end, edns: None, opt: (question_end, question_end), end: question_end };
        match header[4..] {
            [0, 1, 0, 0, 0, 0, 0, 0] => Ok(query),
            [0, 1, 0, answers @ 0..=1, 0, authorities @ 0..=1, 0, additionals @ 0..=2] => {
                query.with_records(answers + authorities, additionals).ok_or(Rejected::Malformed)
            }
            _ => Err(Rejected::Malformed),
        }
    }

    fn with_records(mut self, before: u8, additionals: u8) -> Option<Query<'p>> {
        for index in 0..before + additionals {
            let record = Record::at(self.packet, self.end)?;
            if record.rtype == record_type::OPT {
                let misplaced = index < before || self.edns.is_some() || record.fixed != record.start + 1;
                if misplaced {
                    return None;
                }
                self.edns = Some(Edns::read(self.packet, &record)?);
                self.opt = (record.start, record.end);
            }
            self.end = record.end;
        }
        Some(self)
    }

    /// The client's message id.
    #[inline]
    pub fn id(&self) -> [u8; 2] {
        [self.packet[0], self.packet[1]]
    }

    /// The client's flags.
    #[inline]
    pub fn flags(&self) -> Flags {
        Flags::of(self.packet)
    }

    /// The question as the client spelt it: name, type, class.
    #[inline]
    pub fn question(&self) -> &'p [u8] {
        &self.packet[HEADER..self.question_end]
    }

    /// The question's name as the client spelt it, uncompressed wire octets.
    #[inline]
    pub fn name(&self) -> &'p [u8] {
        &self.packet[HEADER..self.question_end - 4]
    }

    /// The question's type.
    #[inline]
    pub fn qtype(&self) -> u16 {
        u16_at(self.packet, self.question_end - 4).unwrap_or(0)
    }

    /// The question's class.
    #[inline]
    pub fn qclass(&self) -> u16 {
        u16_at(self.packet, self.question_end - 2).unwrap_or(0)
    }

    /// The client's OPT record.
    #[inline]
    pub fn edns(&self) -> Option<Edns> {
        self.edns
    }

    /// Whether the client asked for DNSSEC records (RFC 3225).
    #[inline]
    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    /// Octets of the whole message as it arrived.
    pub fn len(&self) -> usize {
        self.packet.len()
    }

    /// Never: a query has a header.
    pub fn is_empty(&self) -> bool {
        self.packet.is_empty()
    }

    /// Octets the client takes in one UDP datagram: 512 without EDNS (RFC 1035 §4.2.1), and values
    /// below that count as 512 (RFC 6891 §6.2.3).
    #[inline]
    pub fn udp_limit(&self) -> usize {
        self.edns.map_or(512, |edns| usize::from(edns.udp_size).max(512))
    }

    /// Whether its answer may be shared with others: a plain question and nothing else.
    ///
    /// Transfers and notifications, and queries that carry records besides OPT, get an answer of
    /// their own.
    pub fn is_cacheable(&self) -> bool {
        let plain = self.opt.0 == self.question_end && self.opt.1 == self.end;
        plain
            && self.flags().opcode() == Opcode::QUERY
            && !matches!(self.qtype(), record_type::IXFR | record_type::AXFR)
    }

    /// The message without its OPT.
    pub fn without_opt(&self) -> Vec<u8> {
        let mut message = [&self.packet[..self.opt.0], &self.packet[self.opt.1..self.end]].concat();
        if self.edns.is_some() {
            let additionals = u16_at(&message, 10).unwrap_or(1) - 1;
            message[10..HEADER].copy_from_slice(&additionals.to_be_bytes());
        }
        message
    }

    /// The message to send upstream: the same question and records, an OPT of our own, id zero.
    ///
    /// EDNS is hop by hop (RFC 6891 §6.1.1): cookies, client subnet, keepalive and padding of the
    /// client stay here. AD is always set, so that the answer that everyone shares carries the
    /// upstream's verdict (RFC 6840 §5.7); [`Reply`](super::Reply) clears it for those who did not
    /// ask.
    pub fn upstream_message(&self, udp_size: u16) -> Vec<u8> {
        let kept = self.flags().0 & (Flags::OPCODE | Flags::RD | Flags::CD);
        let mut message = self.without_opt();
        message[..2].fill(0);
        message[2..4].copy_from_slice(&(kept | Flags::AD).to_be_bytes());
        let additionals = u16_at(&message, 10).unwrap_or(0) + 1;
        message[10..HEADER].copy_from_slice(&additionals.to_be_bytes());
        Edns { udp_size, version: 0, dnssec_ok: self.dnssec_ok() }.append(0, &mut message);
        message
    }
}

/// Whether two questions are the same: name, without regard to case, type and class.
///
/// Type and class are numbers whose octets may look like letters (65 and 97 are `A` and `a`); the
/// length octets of a name never do.
#[inline]
pub fn same_question(one: &[u8], other: &[u8]) -> bool {
    let (Some((one, one_fixed)), Some((other, other_fixed))) =
        (one.split_last_chunk::<4>(), other.split_last_chunk::<4>())
    else {
        return false;
    };
    one_fixed == other_fixed && one.eq_ignore_ascii_case(other)
}

/// Offset after the first question of `packet`, whose name must be uncompressed.
#[inline]
pub(super) fn question_end(packet: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        let len = usize::from(*packet.get(at)?);
        at += 1;
        if len == 0 {
            break;
        }
        if len > 63 {
            return None;
        }
        at += len;
    }
    let end = at + 4;
    (at - HEADER <= MAX_NAME && end <= packet.len()).then_some(end)
}
