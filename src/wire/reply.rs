//! The only way out for bytes that a client sees.

use super::answer::{Answer, Outline, ttl_offsets};
use super::edns::{Edns, ExtendedError};
use super::header::{Flags, HEADER, Opcode, Rcode, u16_at};
use super::query::{Query, Rejected, same_question};

/// Octets of UDP payload that every client takes (RFC 1035 §4.2.1).
const UDP_LIMIT: usize = 512;

/// Writes replies into a buffer.
///
/// Every reply, whether hit, miss, stale or error, over UDP or TCP, is finished here: the client's
/// id, its spelling of the question, its RD and CD, an OPT if and only if it sent one, and not one
/// octet more than it takes.
pub struct Reply;

/// How an [`Answer`] is presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The TTL of every record; `None` leaves the upstream's.
    pub ttl: Option<u32>,
    /// Set AA, as CoreDNS does on answers from its cache (some old stubs insist on it).
    pub authoritative: bool,
    /// What to tell about it.
    pub extended_error: Option<ExtendedError>,
}

impl Reply {
    /// Writes `answer` as the reply to `query`, in at most `limit` octets, and returns its length; 0 if
    /// `out` is too short to work in. [`REPLY_ROOM`](super::REPLY_ROOM) octets never are.
    pub fn from_answer(
        out: &mut [u8],
        query: &Query<'_>,
        answer: &Answer,
        terms: Terms,
        limit: usize,
    ) -> usize {
        let octets = answer.octets();
        let Some(room) = out.get_mut(..octets.len()) else {
            return 0;
        };
        room.copy_from_slice(octets);
        Reply::from_octets(out, query, answer.outline(), terms, || limit)
    }

    /// As [`Reply::from_answer`], where the answer's octets stand at the front of `out` already: a
    /// cache has put them there.
    ///
    /// What does not fit `limit`, which is asked for only beyond the 512 octets that everyone takes, is cut
    /// at a record's border, with TC set if an answer or authority record is missing (RFC 2181 §9).
    #[inline]
    pub fn from_octets(
        out: &mut [u8],
        query: &Query<'_>,
        outline: Outline,
        terms: Terms,
        limit: impl FnOnce() -> usize,
    ) -> usize {
        let len = outline.len();
        let Some((message, offsets)) =
            out.get_mut(..outline.octets()).and_then(|o| o.split_at_mut_checked(len))
        else {
            return 0;
        };
        if let Some(ttl) = terms.ttl {
            let ttl = ttl.to_be_bytes();
            for at in ttl_offsets(offsets) {
                if let Some(field) = message.get_mut(at..at + 4) {
                    field.copy_from_slice(&ttl);
                }
            }
        }
        let opt_len = if query.edns().is_some() { Edns::len_with(terms.extended_error) } else { 0 };
        let too_long = |limit| len + opt_len > limit;
        let len = match too_long(UDP_LIMIT).then(limit) {
            Some(limit) if too_long(limit) => Reply::cut(message, offsets, outline, limit - opt_len),
            _ => len,
        };
        Reply::finish(out, len, query, outline.rcode(), terms)
    }

    /// Shortens `message` to as many whole records as fit `limit`, and returns its new length.
    #[cold]
    fn cut(message: &mut [u8], offsets: &[u8], outline: Outline, limit: usize) -> usize {
        let mut end = outline.question_end();
        let mut left = 0;
        for ttl in ttl_offsets(offsets) {
            let Some(rdlength) = u16_at(message, ttl + 4) else {
                break;
            };
            let record_end = ttl + 6 + usize::from(rdlength);
            if record_end > limit {
                break;
            }
            end = record_end;
            left += 1;
        }
        let mut missing = false;
        for (section, at) in [6, 8, 10].into_iter().enumerate() {
            let had = u16_at(message, at).unwrap_or(0);
            let has = had.min(left);
            left -= has;
            missing |= section < 2 && has < had;
            message[at..at + 2].copy_from_slice(&has.to_be_bytes());
        }
        if missing {
            message[2] |= (Flags::TC >> 8) as u8;
        }
        end
    }

    /// Puts the client's id, flags, question and OPT on the message in `out[..len]`.
    #[inline]
    fn finish(out: &mut [u8], len: usize, query: &Query<'_>, rcode: Rcode, terms: Terms) -> usize {
        let Some((header, behind)) = out.split_first_chunk_mut::<HEADER>() else {
            return 0;
        };
        let asked = query.flags();
        let authentic = asked.has(Flags::AD) || query.dnssec_ok();
        let dropped = Flags::RD | Flags::CD | if authentic { 0 } else { Flags::AD };
        let mut flags = u16::from_be_bytes([header[2], header[3]]) & !dropped;
        flags |= Flags::QR | asked.0 & (Flags::RD | Flags::CD);
        if terms.authoritative {
            flags |= Flags::AA;
        }
        if rcode.0 > 15 && query.edns().is_none() {
            // Half of an extended code would read as another one.
            flags = flags & !Flags::RCODE | Rcode::SERVFAIL.0;
        }
        header[..2].copy_from_slice(&query.id());
        header[2..4].copy_from_slice(&flags.to_be_bytes());
        let question = query.question();
        if let Some(place) = behind.get_mut(..question.len()) {
            place.copy_from_slice(question);
        }
        Reply::append_opt(out, len, query, rcode, terms.extended_error)
    }

    /// Appends the OPT of a reply if the query had one (RFC 6891 §6.1.1), and counts it.
    #[inline]
    fn append_opt(
        out: &mut [u8],
        len: usize,
        query: &Query<'_>,
        rcode: Rcode,
        error: Option<ExtendedError>,
    ) -> usize {
        let Some(edns) = query.edns() else {
            return len;
        };
        let own = Edns { udp_size: edns.udp_size.max(512), version: 0, dnssec_ok: edns.dnssec_ok };
        let written = own.write((rcode.0 >> 4) as u8, error, &mut out[len..]);
        if written > 0 {
            let additionals = u16::from_be_bytes([out[10], out[11]]).wrapping_add(1);
            out[10..HEADER].copy_from_slice(&additionals.to_be_bytes());
        }
        len + written
    }

    /// Writes a reply that is nothing but a response code, with the question, and in its OPT `error`.
    pub fn error(out: &mut [u8], query: &Query<'_>, rcode: Rcode, error: Option<ExtendedError>) -> usize {
        let question = query.question();
        let asked = query.flags();
        let flags = Flags::QR | asked.0 & (Flags::OPCODE | Flags::RD | Flags::CD) | rcode.0 & Flags::RCODE;
        let len = HEADER + question.len();
        out[..2].copy_from_slice(&query.id());
        out[2..4].copy_from_slice(&flags.to_be_bytes());
        out[4..HEADER].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        out[HEADER..len].copy_from_slice(question);
        Reply::append_opt(out, len, query, rcode, error)
    }

    /// Writes the reply to bytes that are no [`Query`]: a header alone, for nothing behind the id is
    /// to be trusted. `None` for what must not be answered.
    pub fn reject(out: &mut [u8], packet: &[u8], rejected: Rejected) -> Option<usize> {
        let (opcode, rcode) = match rejected {
            Rejected::TooShort | Rejected::Response => return None,
            Rejected::NotImplemented => (Flags::of(packet).0 & Flags::OPCODE, Rcode::NOTIMP),
            Rejected::Malformed => (u16::from(Opcode::QUERY.0), Rcode::FORMERR),
        };
        let flags = Flags::QR | opcode | Flags::of(packet).0 & Flags::RD | rcode.0;
        let header = out.get_mut(..HEADER)?;
        header.fill(0);
        header[..2].copy_from_slice(packet.get(..2)?);
        header[2..4].copy_from_slice(&flags.to_be_bytes());
        Some(HEADER)
    }

    /// Passes on a response nobody here can walk, with only the client's id and question put in; an OPT
    /// in it cannot be found, and so stays.
    ///
    /// Too long for the client, it becomes header and question with TC, so that the client asks again
    /// over TCP. Shorter than its question, it is no response at all and becomes SERVFAIL.
    pub fn opaque(out: &mut [u8], query: &Query<'_>, response: &[u8], limit: usize) -> usize {
        let question = query.question();
        let head = HEADER + question.len();
        if response.len() < head || !same_question(&response[HEADER..head], question) {
            return Reply::error(out, query, Rcode::SERVFAIL, None);
        }
        if response.len() > limit {
            let len = Reply::error(out, query, Flags::of(response).rcode(), None);
            out[2] |= (Flags::TC >> 8) as u8;
            return len;
        }
        out[..response.len()].copy_from_slice(response);
        out[..2].copy_from_slice(&query.id());
        out[HEADER..head].copy_from_slice(question);
        response.len()
    }
}
