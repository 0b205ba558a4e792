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
    question: &'p [u8],
    header: &'p [u8; HEADER],
    flags: Flags,
    qtype: u16,
    qclass: u16,
    edns: Option<Edns>,
    /// There are records besides the question and an OPT.
    has_records: bool,
}

/// What follows the question.
#[derive(Debug, Clone, Copy)]
struct Tail {
    edns: Option<Edns>,
    /// Where the OPT record stands; empty without one.
    opt: (u16, u16),
    /// Offset after the last record.
    end: u16,
}

/// Additional records a query may have: an OPT, and a TSIG, say.
const MAX_ADDITIONALS: u8 = 2;

/// The counts of a message with one question and no record.
const QUESTION_ALONE: [u8; 8] = [0, 1, 0, 0, 0, 0, 0, 0];

/// The counts of a message with one question and one additional record.
const OPT_ALONE: [u8; 8] = [0, 1, 0, 0, 0, 0, 0, 1];

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

impl Tail {
    /// Reads as many records as `counts`, the header's, say; `None` if there must not be so many, or such.
    #[inline(never)]
    fn read(packet: &[u8], question_end: usize, counts: &[u8]) -> Option<Tail> {
        let (before, additionals) = match *counts {
            [0, 1, 0, answers @ 0..=1, 0, authorities @ 0..=1, 0, additionals @ 0..=MAX_ADDITIONALS] => {
                (answers + authorities, additionals)
            }
            _ => return None,
        };
        let end = u16::try_from(question_end).ok()?;
        let mut tail = Tail { edns: None, opt: (end, end), end };
        for index in 0..before + additionals {
            let record = Record::at(packet, usize::from(tail.end))?;
            let end = u16::try_from(record.end).ok()?;
            if record.rtype == record_type::OPT {
                let misplaced = index < before || tail.edns.is_some() || record.fixed != record.start + 1;
                if misplaced {
                    return None;
                }
                tail.edns = Some(Edns::read(packet, &record)?);
                tail.opt = (tail.end, end);
            }
            tail.end = end;
        }
        Some(tail)
    }
}

impl<'p> Query<'p> {
    /// Reads a request.
    #[inline(always)]
    pub fn parse(packet: &'p [u8]) -> Result<Query<'p>, Rejected> {
        let Some(header) = packet.first_chunk::<HEADER>() else {
            return Err(Rejected::TooShort);
        };
        let flags = Flags(u16::from_be_bytes([header[2], header[3]]));
        if flags.has(Flags::QR | Flags::OPCODE) {
            if flags.has(Flags::QR) {
                return Err(Rejected::Response);
            }
            if flags.opcode() != Opcode::NOTIFY {
                return Err(Rejected::NotImplemented);
            }
        }
        let question_end = question_end(packet).ok_or(Rejected::Malformed)?;
        let question = packet.get(HEADER..question_end).ok_or(Rejected::Malformed)?;
        let [.., type_high, type_low, class_high, class_low] = *question else {
            return Err(Rejected::Malformed);
        };
        let qtype = u16::from_be_bytes([type_high, type_low]);
        let qclass = u16::from_be_bytes([class_high, class_low]);
        let counts = &header[4..];
        let (edns, has_records) = if counts == QUESTION_ALONE {
            (None, false)
        } else if counts == OPT_ALONE
            && let Some(edns) = plain_opt(packet, question_end)
        {
            (Some(edns), false)
        } else {
            let tail = Tail::read(packet, question_end, counts).ok_or(Rejected::Malformed)?;
            (tail.edns, usize::from(tail.opt.0) != question_end || tail.opt.1 != tail.end)
        };
        Ok(Query { packet, question, header, flags, qtype, qclass, edns, has_records })
    }

    /// The client's message id.
    #[inline(always)]
    pub fn id(&self) -> [u8; 2] {
        [self.header[0], self.header[1]]
    }

    /// The message as it arrived.
    #[inline(always)]
    pub fn octets(&self) -> &'p [u8] {
        self.packet
    }

    /// The client's flags.
    #[inline(always)]
    pub fn flags(&self) -> Flags {
        self.flags
    }

    /// The question as the client spelt it: name, type, class.
    #[inline(always)]
    pub fn question(&self) -> &'p [u8] {
        self.question
    }

    /// The question's name as the client spelt it, uncompressed wire octets.
    #[inline(always)]
    pub fn name(&self) -> &'p [u8] {
        self.question.split_last_chunk::<4>().map_or(&[], |(name, _)| name)
    }

    /// The question's type.
    #[inline(always)]
    pub fn qtype(&self) -> u16 {
        self.qtype
    }

    /// The question's class.
    #[inline(always)]
    pub fn qclass(&self) -> u16 {
        self.qclass
    }

    /// The client's OPT record.
    #[inline(always)]
    pub fn edns(&self) -> Option<Edns> {
        self.edns
    }

    /// Whether the client asked for DNSSEC records (RFC 3225).
    #[inline(always)]
    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    /// Octets of the whole message as it arrived.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.packet.len()
    }

    /// Never: a query has a header.
    pub fn is_empty(&self) -> bool {
        self.packet.is_empty()
    }

    /// Octets the client takes in one UDP datagram.
    #[inline(always)]
    pub fn udp_limit(&self) -> usize {
        Edns::udp_limit(self.edns)
    }

    /// Whether its answer may be shared with others: a plain question and nothing else.
    ///
    /// Transfers and notifications, and queries that carry records besides OPT, get an answer of
    /// their own.
    #[inline(always)]
    pub fn is_cacheable(&self) -> bool {
        !self.has_records
            && self.flags().opcode() == Opcode::QUERY
            && !matches!(self.qtype(), record_type::IXFR | record_type::AXFR)
    }

    /// The message without its OPT.
    pub fn without_opt(&self) -> Vec<u8> {
        self.without_opt_and_room(0)
    }

    /// The message without its OPT, with room for `room` octets behind it.
    fn without_opt_and_room(&self, room: usize) -> Vec<u8> {
        let question_end = HEADER + self.question.len();
        // It was read before, so there is nothing it could fail at.
        let tail =
            self.packet.get(4..HEADER).and_then(|counts| Tail::read(self.packet, question_end, counts));
        let (opt, end) = tail.map_or(((question_end, question_end), question_end), |tail| {
            ((usize::from(tail.opt.0), usize::from(tail.opt.1)), usize::from(tail.end))
        });
        let parts = [&self.packet[..opt.0], &self.packet[opt.1..end]];
        let mut message = Vec::with_capacity(parts[0].len() + parts[1].len() + room);
        parts.into_iter().for_each(|part| message.extend_from_slice(part));
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
    /// ask. A query whose other records leave no room for an OPT, which a listener such as CoreDNS's would
    /// refuse, goes without.
    pub fn upstream_message(&self, udp_size: u16) -> Vec<u8> {
        let kept = self.flags().0 & (Flags::OPCODE | Flags::RD | Flags::CD);
        let mut message = self.without_opt_and_room(Edns::LEN);
        message[..2].fill(0);
        message[2..4].copy_from_slice(&(kept | Flags::AD).to_be_bytes());
        let additionals = u16_at(&message, 10).unwrap_or(0) + 1;
        if additionals <= u16::from(MAX_ADDITIONALS) {
            message[10..HEADER].copy_from_slice(&additionals.to_be_bytes());
            Edns { udp_size, version: 0, dnssec_ok: self.dnssec_ok() }.append(0, &mut message);
        }
        message
    }
}

/// Reads an OPT without options, which nearly all stub resolvers that send one send, and nothing else.
#[inline(always)]
fn plain_opt(packet: &[u8], question_end: usize) -> Option<Edns> {
    let opt = packet.get(question_end..)?.first_chunk::<{ Edns::LEN }>()?;
    let [0, 0, 41, size_high, size_low, _, version, flags, _, 0, 0] = *opt else { return None };
    let udp_size = u16::from_be_bytes([size_high, size_low]);
    Some(Edns { udp_size, version, dnssec_ok: flags & 0x80 != 0 })
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

/// The least number that is not the length of a label (RFC 1035 §2.3.4).
const NO_LENGTH: usize = 64;

/// Offset after the first question of `packet`, whose name must be uncompressed.
#[inline(always)]
pub(super) fn question_end(packet: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    let last = loop {
        let len = packet.get(at).map_or(NO_LENGTH, |len| usize::from(*len));
        // One comparison for both: the root's length is 0, pointers and what else is no length are above 63.
        if len.wrapping_sub(1) >= NO_LENGTH - 1 {
            break len;
        }
        at += 1 + len;
    };
    let end = at + 5;
    (last == 0 && at - HEADER < MAX_NAME && end <= packet.len()).then_some(end)
}
