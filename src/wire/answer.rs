//! An upstream's message, checked once and kept as the bytes it was.

use smallvec::SmallVec;

use super::edns::Edns;
use super::header::{Flags, HEADER, Opcode, Rcode, Record, record_type, u16_at, u32_at};
use super::query::{question_end, same_question};

/// Most records one message may have to be kept; more are passed on and not cached.
pub(super) const MAX_RECORDS: usize = 4096;
/// Octets before the records: flags and three counts, as in a header without id and number of questions.
pub(super) const HEAD: usize = 8;

/// A response: flags, counts and records as the upstream wrote them, without its OPT. A reply's id and
/// question are the client's, so they are not kept.
///
/// The offsets of the TTL fields, counted from the first record, stand behind the records, two octets each;
/// they are also what finds a record's end when a reply must be cut.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    octets: Box<[u8]>,
    outline: Outline,
}

/// What must be known of an [`Answer`] beside its octets, in one word, so that a cache can keep both
/// wherever it likes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Outline(u64);

/// What an answer says, in the classes by which CoreDNS caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// NOERROR with answer records.
    Success,
    /// NOERROR that names other servers (RFC 2308 §2.2).
    Delegation,
    /// NOERROR with neither answer, SOA nor delegation.
    Empty,
    /// NOERROR without answer records but with an SOA (RFC 2308 §2.2).
    NoData,
    /// NXDOMAIN with an SOA (RFC 2308 §2.1).
    NxDomain,
    /// SERVFAIL or NOTIMP.
    ServerFailure,
    /// Anything else; not cached.
    Other,
}

/// Facts about an answer's lifetime that only the cache's insertion needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// Least TTL of all records, `None` without any; a TTL with its top bit set counts as 0
    /// (RFC 2181 §8).
    pub min_ttl: Option<u32>,
    /// MINIMUM field of the SOA in the authority section (RFC 2308 §4).
    pub soa_minimum: Option<u32>,
    /// When the first RRSIG of the answer or authority section expires, seconds since 1970 in
    /// serial arithmetic (RFC 4034 §3.1.5).
    pub signature_expires: Option<u32>,
}

/// Why an upstream's message cannot be kept. It is still the upstream's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unscannable {
    /// Shorter than its header or counts say, or a name runs wild.
    #[error("the answer's records cannot be walked")]
    Malformed,
    /// The question is not the one that was asked.
    #[error("the answer is to another question")]
    Mismatch,
    /// More records than anyone needs.
    #[error("the answer has more than 4096 records")]
    TooManyRecords,
}

struct Walk {
    ttls: SmallVec<[u16; 16]>,
    opt: Option<Record>,
    rcode: u16,
    lifetime: Lifetime,
    authority: Authority,
    end: usize,
}

#[derive(Default)]
struct Authority {
    soa: bool,
    ns: bool,
}

impl Answer {
    /// Walks `message`, the response to `question` (name, type and class as sent).
    pub fn scan(message: &[u8], question: &[u8]) -> Result<(Answer, Lifetime), Unscannable> {
        let with_question = restore_question(message, question)?;
        let message = with_question.as_deref().unwrap_or(message);
        let question_end = question_end(message).ok_or(Unscannable::Malformed)?;
        if !same_question(&message[HEADER..question_end], question) {
            return Err(Unscannable::Mismatch);
        }
        let walk = Walk::over(message, question_end)?;
        let flags = Flags::of(message);
        let rcode = Rcode(walk.rcode << 4 | flags.rcode().0);
        let kind = kind(flags, rcode, u16_at(message, 6).unwrap_or(0), &walk.authority);
        let lifetime = walk.lifetime;
        let ttls = walk.ttls.len();
        let (octets, records) = walk.assemble(message, question_end)?;
        let outline = Outline::new(records, ttls, rcode, kind);
        Ok((Answer { octets, outline }, lifetime))
    }

    /// The answer to `question` whose outline was kept elsewhere, and whose octets stand at their
    /// [`place`](Answer::place) in `out`. `None` if there are fewer.
    pub fn restore(outline: Outline, question: &[u8], out: &[u8]) -> Option<Answer> {
        let octets = out.get(Answer::place(question)..)?.get(..outline.octets())?;
        Some(Answer { octets: octets.into(), outline })
    }

    /// Where in a reply to `question` an answer's octets are put, so that its records are where they belong.
    #[inline]
    pub fn place(question: &[u8]) -> usize {
        HEADER + question.len() - HEAD
    }

    /// What goes with [`Answer::octets`].
    #[inline]
    pub fn outline(&self) -> Outline {
        self.outline
    }

    /// Flags, counts of records and the records, without OPT, and behind them the offsets of their TTL fields.
    #[inline]
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// The response code.
    #[inline]
    pub fn rcode(&self) -> Rcode {
        self.outline.rcode()
    }

    /// What it says.
    #[inline]
    pub fn kind(&self) -> Kind {
        self.outline.kind()
    }

    /// The upstream's flags.
    #[inline]
    pub fn flags(&self) -> Flags {
        Flags(u16_at(&self.octets, 0).unwrap_or(0))
    }
}

impl Outline {
    const TTLS: u32 = 16;
    const RCODE: u32 = 32;
    const KIND: u32 = 48;

    /// The widths hold what [`Walk`] lets through: a length of 16 bits, [`MAX_RECORDS`] TTLs, and a response
    /// code of 12 bits (RFC 6891 §6.1.3).
    fn new(records: u16, ttls: usize, rcode: Rcode, kind: Kind) -> Outline {
        Outline(
            u64::from(records)
                | (ttls as u64) << Outline::TTLS
                | u64::from(rcode.0) << Outline::RCODE
                | (kind as u64) << Outline::KIND,
        )
    }

    /// The word that [`Outline::from_bits`] takes.
    #[inline]
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// Any word is an outline, if not of the octets at hand.
    #[inline]
    pub fn from_bits(bits: u64) -> Outline {
        Outline(bits)
    }

    /// Length of what is kept: head, records and offsets.
    #[inline]
    pub fn octets(self) -> usize {
        HEAD + self.records() + self.offsets()
    }

    /// Length of the records.
    #[inline]
    pub(super) fn records(self) -> usize {
        (self.0 & 0xffff) as usize
    }

    /// Length of the offsets behind them.
    #[inline]
    pub(super) fn offsets(self) -> usize {
        2 * (self.0 >> Outline::TTLS & 0xffff) as usize
    }

    /// The response code, the OPT's part included.
    #[inline]
    pub fn rcode(self) -> Rcode {
        Rcode((self.0 >> Outline::RCODE & 0xfff) as u16)
    }

    /// What the answer says.
    #[inline]
    pub fn kind(self) -> Kind {
        match self.0 >> Outline::KIND {
            0 => Kind::Success,
            1 => Kind::Delegation,
            2 => Kind::Empty,
            3 => Kind::NoData,
            4 => Kind::NxDomain,
            5 => Kind::ServerFailure,
            _ => Kind::Other,
        }
    }
}

/// Offsets of TTL fields as they stand behind the records.
#[inline]
pub(super) fn ttl_offsets(octets: &[u8]) -> impl ExactSizeIterator<Item = usize> + '_ {
    octets.as_chunks::<2>().0.iter().map(|pair| usize::from(u16::from_ne_bytes(*pair)))
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Answer({:?})", self.outline)
    }
}

impl std::fmt::Debug for Outline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}, {} octets of records", self.rcode(), self.kind(), self.records())
    }
}

/// Gives an error reply without a question, as RFC 1035 §4.1.1 lets servers send it, its question
/// back. `None`: it has one.
///
/// Any record but an OPT might point to a name, and names move.
fn restore_question(message: &[u8], question: &[u8]) -> Result<Option<Vec<u8>>, Unscannable> {
    let header = message.first_chunk::<HEADER>().ok_or(Unscannable::Malformed)?;
    match header[4..] {
        [0, 1, ..] => Ok(None),
        [0, 0, 0, 0, 0, 0, 0, additionals @ 0..=1] if Flags::of(message).rcode() != Rcode::NOERROR => {
            let rtype = Record::at(message, HEADER).map(|record| record.rtype);
            if additionals == 1 && rtype != Some(record_type::OPT) {
                return Err(Unscannable::Malformed);
            }
            let mut restored = Vec::with_capacity(message.len() + question.len());
            restored.extend_from_slice(header);
            restored[5] = 1;
            restored.extend_from_slice(question);
            restored.extend_from_slice(&message[HEADER..]);
            Ok(Some(restored))
        }
        _ => Err(Unscannable::Mismatch),
    }
}

impl Walk {
    fn over(message: &[u8], question_end: usize) -> Result<Walk, Unscannable> {
        let count = |at| usize::from(u16_at(message, at).unwrap_or(0));
        let (answers, authorities) = (count(6), count(8));
        let records = answers + authorities + count(10);
        if records > MAX_RECORDS {
            return Err(Unscannable::TooManyRecords);
        }
        let lifetime = Lifetime { min_ttl: None, soa_minimum: None, signature_expires: None };
        let mut walk = Walk {
            ttls: SmallVec::new(),
            opt: None,
            rcode: 0,
            lifetime,
            authority: Authority::default(),
            end: question_end,
        };
        for index in 0..records {
            let record = Record::at(message, walk.end).ok_or(Unscannable::Malformed)?;
            walk.end = record.end;
            if record.rtype == record_type::OPT && index >= answers + authorities {
                walk.take_opt(message, record)?;
            } else {
                walk.take(message, &record, index >= answers && index < answers + authorities)?;
            }
        }
        Ok(walk)
    }

    fn take_opt(&mut self, message: &[u8], record: Record) -> Result<(), Unscannable> {
        if self.opt.is_some() {
            return Err(Unscannable::Malformed);
        }
        self.rcode = Edns::extended_rcode(message, &record);
        self.opt = Some(record);
        Ok(())
    }

    fn take(&mut self, message: &[u8], record: &Record, in_authority: bool) -> Result<(), Unscannable> {
        let removed = match self.opt {
            Some(opt) if may_point_past(&message[record.start..record.end], opt.start) => {
                return Err(Unscannable::Malformed);
            }
            Some(opt) => opt.end - opt.start,
            None => 0,
        };
        self.ttls.push(u16::try_from(record.ttl() - removed).map_err(|_| Unscannable::Malformed)?);
        let ttl = u32_at(message, record.ttl()).unwrap_or(0);
        let ttl = if ttl > i32::MAX as u32 { 0 } else { ttl };
        let least = &mut self.lifetime.min_ttl;
        *least = Some(least.map_or(ttl, |so_far| so_far.min(ttl)));
        match record.rtype {
            record_type::RRSIG => {
                let expires = u32_at(message, record.rdata + 8).filter(|_| record.end >= record.rdata + 18);
                self.lifetime.signature_expires = earlier(self.lifetime.signature_expires, expires);
            }
            record_type::SOA if in_authority => {
                self.authority.soa = true;
                // The last of the five numbers that end an SOA (RFC 1035 §3.3.13).
                let minimum = (record.end >= record.rdata + 22).then(|| u32_at(message, record.end - 4));
                self.lifetime.soa_minimum = minimum.flatten();
            }
            record_type::NS if in_authority => self.authority.ns = true,
            _ => {}
        }
        Ok(())
    }

    /// Flags and counts, the records without their OPT, and the TTL offsets behind them; and the records'
    /// length.
    fn assemble(self, message: &[u8], question_end: usize) -> Result<(Box<[u8]>, u16), Unscannable> {
        let (opt_start, opt_end) = self.opt.map_or((self.end, self.end), |opt| (opt.start, opt.end));
        let records = self.end - question_end - (opt_end - opt_start);
        let mut octets = Vec::with_capacity(HEAD + records + 2 * self.ttls.len());
        octets.extend_from_slice(&message[2..4]);
        octets.extend_from_slice(&message[6..HEADER]);
        octets.extend_from_slice(&message[question_end..opt_start]);
        octets.extend_from_slice(&message[opt_end..self.end]);
        if self.opt.is_some() {
            let additionals = u16_at(message, 10).unwrap_or(1) - 1;
            octets[6..HEAD].copy_from_slice(&additionals.to_be_bytes());
        }
        for ttl in &self.ttls {
            // It was an offset in the whole message.
            octets.extend_from_slice(&(ttl - question_end as u16).to_ne_bytes());
        }
        Ok((octets.into_boxed_slice(), u16::try_from(records).map_err(|_| Unscannable::Malformed)?))
    }
}

/// Whether `record` holds what could be a compression pointer beyond `offset`.
///
/// Taking out an OPT that is not the last record moves what follows it. Such a message is rare
/// enough (a signed transaction) to be refused on suspicion rather than rewritten.
fn may_point_past(record: &[u8], offset: usize) -> bool {
    record.windows(2).any(|pair| {
        let target = usize::from(u16::from_be_bytes([pair[0] & 0x3f, pair[1]]));
        pair[0] >= 0xc0 && target > offset
    })
}

/// The earlier of two points in serial arithmetic (RFC 1982).
fn earlier(so_far: Option<u32>, next: Option<u32>) -> Option<u32> {
    match (so_far, next) {
        (Some(a), Some(b)) => Some(if (b.wrapping_sub(a) as i32) < 0 { b } else { a }),
        (a, b) => a.or(b),
    }
}

fn kind(flags: Flags, rcode: Rcode, answers: u16, authority: &Authority) -> Kind {
    if flags.opcode() != Opcode::QUERY {
        return Kind::Other;
    }
    match rcode {
        Rcode::NOERROR if answers > 0 => Kind::Success,
        Rcode::NOERROR if authority.soa => Kind::NoData,
        Rcode::NOERROR if authority.ns => Kind::Delegation,
        Rcode::NOERROR => Kind::Empty,
        Rcode::NXDOMAIN if authority.soa => Kind::NxDomain,
        Rcode::SERVFAIL | Rcode::NOTIMP => Kind::ServerFailure,
        _ => Kind::Other,
    }
}
