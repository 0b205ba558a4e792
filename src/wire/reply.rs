//! The only way out for bytes that a client sees.

use super::answer::{Answer, HEAD, Outline, ttl_offsets};
use super::balance::Balance;
use super::edns::{Edns, ExtendedError};
use super::header::{Flags, HEADER, Opcode, Rcode, u16_at};
use super::name::copy_octets;
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

type Parts<'o> = ([u8; HEAD], &'o mut [u8; HEADER], &'o mut [u8], &'o mut [u8], &'o [u8]);

impl Reply {
    /// Writes `answer`, its addresses in the order of `balance` if there is one, as the reply to `query`, in at most `limit` octets, and returns its length; 0 if
    /// `out` is too short to work in. [`REPLY_ROOM`](super::REPLY_ROOM) octets never are.
    pub fn from_answer(
        out: &mut [u8],
        query: &Query<'_>,
        answer: &Answer,
        terms: Terms,
        balance: Option<Balance<'_>>,
        limit: usize,
    ) -> usize {
        let octets = answer.octets();
        let room =
            out.get_mut(Answer::place(query.question())..).and_then(|room| room.get_mut(..octets.len()));
        let Some(room) = room else {
            return 0;
        };
        room.copy_from_slice(octets);
        if let Some(balance) = balance {
            balance.apply(out, query.question(), answer.outline());
        }
        Reply::from_octets(out, query, answer.outline(), terms, || limit)
    }

    /// As [`Reply::from_answer`], where the answer's octets stand at their [`place`](Answer::place) in `out`
    /// already: a cache has put them there.
    ///
    /// What does not fit `limit`, which is asked for only beyond the 512 octets that everyone takes, is cut
    /// at a record's border, with TC set if an answer or authority record is missing (RFC 2181 §9).
    #[inline(always)]
    pub fn from_octets(
        out: &mut [u8],
        query: &Query<'_>,
        outline: Outline,
        terms: Terms,
        limit: impl FnOnce() -> usize,
    ) -> usize {
        let question = query.question();
        let Some((head, header, place, records, offsets)) = Reply::parts(out, question, outline) else {
            return 0;
        };
        Reply::write_header(header, head, query, outline.rcode(), terms.authoritative);
        copy_octets(place, question);
        if let Some(ttl) = terms.ttl {
            Reply::write_ttls(records, offsets, ttl.to_be_bytes());
        }
        let start = HEADER + question.len();
        let end = start + records.len();
        let opt_len = query.edns().map_or(0, |_| Edns::len_with(terms.extended_error));
        let mut len = end;
        if end + opt_len > UDP_LIMIT {
            let limit = limit();
            if end + opt_len > limit {
                len = start + Reply::cut(header, records, offsets, limit.saturating_sub(opt_len + start));
            }
        }
        match query.edns() {
            Some(edns) => Reply::append_opt(out, len, edns, outline.rcode(), terms.extended_error),
            None => len,
        }
    }

    /// Writes `ttl` at all of `offsets`. Most answers have one record; the others have a loop for themselves, which
    /// keeps all it needs in registers.
    #[inline(always)]
    fn write_ttls(records: &mut [u8], offsets: &[u8], ttl: [u8; 4]) {
        #[inline(always)]
        fn write(records: &mut [u8], offsets: &[u8], ttl: [u8; 4]) {
            for at in ttl_offsets(offsets) {
                if let Some(field) = records.get_mut(at..at + 4) {
                    field.copy_from_slice(&ttl);
                }
            }
        }
        #[inline(never)]
        fn write_rest(records: &mut [u8], offsets: &[u8], ttl: [u8; 4]) {
            write(records, offsets, ttl);
        }
        let (first, rest) = offsets.split_at(offsets.len().min(2));
        write(records, first, ttl);
        if !rest.is_empty() {
            write_rest(records, rest, ttl);
        }
    }

    /// What an answer begins with, and where header, question, records and offsets are; `None`: `out` ends
    /// before.
    #[inline(always)]
    fn parts<'o>(out: &'o mut [u8], question: &[u8], outline: Outline) -> Option<Parts<'o>> {
        let head = *out.get(Answer::place(question)..)?.first_chunk()?;
        let (header, behind) = out.split_first_chunk_mut()?;
        let (place, behind) = behind.split_at_mut_checked(question.len())?;
        let (records, behind) = behind.split_at_mut_checked(outline.records())?;
        Some((head, header, place, records, behind.get(..outline.offsets())?))
    }

    /// Writes the header of a reply to `query`, with flags and counts that an answer begins with.
    #[inline(always)]
    fn write_header(
        header: &mut [u8; HEADER],
        head: [u8; HEAD],
        query: &Query<'_>,
        rcode: Rcode,
        authoritative: bool,
    ) {
        let asked = query.flags();
        let authentic = asked.has(Flags::AD) || query.dnssec_ok();
        let dropped = Flags::RD | Flags::CD | if authentic { 0 } else { Flags::AD };
        let mut flags = u16::from_be_bytes([head[0], head[1]]) & !dropped;
        flags |= Flags::QR | asked.0 & (Flags::RD | Flags::CD);
        if authoritative {
            flags |= Flags::AA;
        }
        if rcode.0 > 15 && query.edns().is_none() {
            // Half of an extended code would read as another one.
            flags = flags & !Flags::RCODE | Rcode::SERVFAIL.0;
        }
        // The counts stand right; what is before them is overwritten.
        header[HEADER - HEAD..].copy_from_slice(&head);
        header[..2].copy_from_slice(&query.id());
        header[2..4].copy_from_slice(&flags.to_be_bytes());
        header[4..6].copy_from_slice(&[0, 1]);
    }

    /// Shortens `records` to as many whole ones as fit `room`, and returns their length.
    #[cold]
    fn cut(header: &mut [u8; HEADER], records: &[u8], offsets: &[u8], room: usize) -> usize {
        let mut end = 0;
        let mut left = 0;
        for ttl in ttl_offsets(offsets) {
            let Some(rdlength) = u16_at(records, ttl + 4) else {
                break;
            };
            let record_end = ttl + 6 + usize::from(rdlength);
            if record_end > room {
                break;
            }
            end = record_end;
            left += 1;
        }
        let mut missing = false;
        for (section, at) in [6, 8, 10].into_iter().enumerate() {
            let had = u16_at(header, at).unwrap_or(0);
            let has = had.min(left);
            left -= has;
            missing |= section < 2 && has < had;
            header[at..at + 2].copy_from_slice(&has.to_be_bytes());
        }
        if missing {
            header[2] |= (Flags::TC >> 8) as u8;
        }
        end
    }

    /// Appends the OPT of a reply to a query with one (RFC 6891 §6.1.1), and counts it.
    #[inline]
    pub(super) fn append_opt(
        out: &mut [u8],
        len: usize,
        asked: Edns,
        rcode: Rcode,
        error: Option<ExtendedError>,
    ) -> usize {
        let own = Edns { udp_size: asked.udp_size.max(512), version: 0, dnssec_ok: asked.dnssec_ok };
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
        match query.edns() {
            Some(edns) => Reply::append_opt(out, len, edns, rcode, error),
            None => len,
        }
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
