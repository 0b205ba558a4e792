//! A message taken apart, to be changed and put together again. This allocates: it is for what is done between
//! a miss and its answer.

use std::collections::HashMap;

use super::MAX_MESSAGE;
use super::header::{Flags, HEADER, Rcode, Record, record_type, u16_at, u32_at};
use super::name::MAX_NAME;
use super::query::question_end;

/// Where an offset in a compression pointer ends (RFC 1035 §4.1.4).
const POINTER_END: usize = 1 << 14;

/// A message with one question or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its number.
    pub id: [u8; 2],
    /// The second 16 bits.
    pub flags: Flags,
    /// Name, type and class; empty where there is no question.
    pub question: Vec<u8>,
    /// Answer, authority and additional records, OPT included.
    pub sections: [Vec<ResourceRecord>; 3],
}

/// A record that depends on no other octets of its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceRecord {
    /// Uncompressed wire octets.
    pub owner: Vec<u8>,
    /// Type.
    pub rtype: u16,
    /// Class.
    pub class: u16,
    /// Seconds.
    pub ttl: u32,
    /// Names that may have been compressed are not.
    pub rdata: Vec<u8>,
}

impl Message {
    /// Reads a message; `None` if it is broken, or has two questions.
    pub fn read(octets: &[u8]) -> Option<Message> {
        let header: &[u8; HEADER] = octets.first_chunk()?;
        let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let mut at = match count(4) {
            0 => HEADER,
            1 => question_end(octets)?,
            _ => return None,
        };
        let question = octets.get(HEADER..at)?.to_vec();
        let mut sections = [const { Vec::new() }; 3];
        for (section, records) in sections.iter_mut().enumerate() {
            for _ in 0..count(6 + 2 * section) {
                let record = Record::at(octets, at)?;
                at = record.end;
                records.push(ResourceRecord::read(octets, &record)?);
            }
        }
        Some(Message { id: [header[0], header[1]], flags: Flags::of(octets), question, sections })
    }

    /// The octets; `None`: they are more than a message may have.
    pub fn to_octets(&self) -> Option<Vec<u8>> {
        let mut out = Writer { octets: Vec::with_capacity(512), names: HashMap::new() };
        out.octets.extend(self.id);
        out.octets.extend(self.flags.0.to_be_bytes());
        out.octets.extend([0, u8::from(!self.question.is_empty())]);
        for section in &self.sections {
            out.octets.extend(u16::try_from(section.len()).ok()?.to_be_bytes());
        }
        if let Some((name, fixed)) = self.question.split_last_chunk::<4>() {
            out.name(name);
            out.octets.extend(fixed);
        }
        for record in self.sections.iter().flatten() {
            out.record(record)?;
        }
        Some(out.octets)
    }

    /// The reply to this query that is nothing but a response code of four bits.
    pub fn refusal(&self, rcode: Rcode) -> Message {
        let kept = self.flags.0 & (Flags::OPCODE | Flags::RD | Flags::CD);
        let flags = Flags(Flags::QR | kept | rcode.0 & Flags::RCODE);
        Message { flags, sections: Default::default(), ..self.clone() }
    }

    /// The response code, the OPT's part included.
    pub fn rcode(&self) -> Rcode {
        let extended = self.opt().map_or(0, |opt| (opt.ttl >> 24) as u16);
        Rcode(extended << 4 | self.flags.rcode().0)
    }

    /// Changes the response code. One of more than four bits needs an OPT, and becomes SERVFAIL without.
    pub fn set_rcode(&mut self, rcode: Rcode) {
        let opt = self.sections[2].iter_mut().find(|record| record.rtype == record_type::OPT);
        let low = match opt {
            Some(opt) => {
                opt.ttl = u32::from(rcode.0 >> 4) << 24 | opt.ttl & 0x00ff_ffff;
                rcode.0 & Flags::RCODE
            }
            None if rcode.0 > Flags::RCODE => Rcode::SERVFAIL.0,
            None => rcode.0,
        };
        self.flags.0 = self.flags.0 & !Flags::RCODE | low;
    }

    /// Puts EDNS options, by number, into the OPT, if there is one (RFC 6891 §6.1.2).
    pub fn set_options(&mut self, options: &[(u16, Vec<u8>)]) {
        let opt = self.sections[2].iter_mut().find(|record| record.rtype == record_type::OPT);
        let Some(opt) = opt else { return };
        opt.rdata.clear();
        for (code, data) in options {
            let Ok(length) = u16::try_from(data.len()) else { continue };
            opt.rdata.extend([code.to_be_bytes(), length.to_be_bytes()].concat());
            opt.rdata.extend(data);
        }
    }

    fn opt(&self) -> Option<&ResourceRecord> {
        self.sections[2].iter().find(|record| record.rtype == record_type::OPT)
    }
}

impl ResourceRecord {
    fn read(message: &[u8], record: &Record) -> Option<ResourceRecord> {
        let (owner, _) = expand(message, record.start)?;
        let mut rdata = message.get(record.rdata..record.end)?.to_vec();
        if let Some((before, count)) = names_in(record.rtype, &rdata) {
            rdata.truncate(before);
            let mut at = record.rdata + before;
            for _ in 0..count {
                let (name, end) = expand(message, at)?;
                rdata.extend(name);
                at = end;
            }
            rdata.extend(message.get(at..record.end)?);
        }
        Some(ResourceRecord {
            owner,
            rtype: record.rtype,
            class: u16_at(message, record.fixed + 2)?,
            ttl: u32_at(message, record.ttl())?,
            rdata,
        })
    }

    /// Where in the RDATA its first name is; `None` for types without one that could be compressed.
    pub fn name(&self) -> Option<std::ops::Range<usize>> {
        let (start, _) = names_in(self.rtype, &self.rdata)?;
        Some(start..start + name_len(self.rdata.get(start..)?)?)
    }
}

/// Octets before the names in RDATA of this type, and how many there are. All types whose names a sender may
/// ever have compressed (RFC 3597 §4); in others they are octets like any.
fn names_in(rtype: u16, rdata: &[u8]) -> Option<(usize, usize)> {
    Some(match rtype {
        // NS, MD, MF, CNAME, MB, MG, MR, PTR, NXT, DNAME
        2..=5 | 7..=9 | 12 | 30 | 39 => (0, 1),
        // SOA, MINFO, RP
        6 | 14 | 17 => (0, 2),
        // MX, AFSDB, RT, KX
        15 | 18 | 21 | 36 => (2, 1),
        // PX
        26 => (2, 2),
        // SRV
        33 => (6, 1),
        // SIG
        24 => (18, 1),
        // NAPTR: two numbers and three character strings (RFC 3403 §4.1).
        35 => {
            let mut at = 4;
            for _ in 0..3 {
                at += 1 + usize::from(*rdata.get(at)?);
            }
            (at, 1)
        }
        _ => return None,
    })
}

/// Whether names in RDATA of this type may be compressed (RFC 1035 §3.3; no type since: RFC 3597 §4).
fn is_compressible(rtype: u16) -> bool {
    matches!(rtype, 2..=9 | 12 | 14 | 15)
}

/// The name at `at` with its pointers followed, and the offset after it.
fn expand(message: &[u8], at: usize) -> Option<(Vec<u8>, usize)> {
    let (mut name, mut end) = (Vec::new(), None);
    let (mut here, mut lowest) = (at, at);
    loop {
        let len = *message.get(here)?;
        match len {
            0 => {
                name.push(0);
                return (name.len() <= MAX_NAME).then_some((name, end.unwrap_or(here + 1)));
            }
            1..=63 => {
                name.extend(message.get(here..here + 1 + usize::from(len))?);
                here += 1 + usize::from(len);
            }
            192.. => {
                end = end.or(Some(here + 2));
                here = usize::from(u16_at(message, here)? & 0x3fff);
                // Each goes further back, or there would be no end.
                if here >= lowest {
                    return None;
                }
                lowest = here;
            }
            _ => return None,
        }
        if name.len() > MAX_NAME {
            return None;
        }
    }
}

/// Octets of the uncompressed name in front.
fn name_len(octets: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let len @ 1.. = usize::from(*octets.get(at)?) {
        at += 1 + len;
    }
    Some(at + 1)
}

/// A message under construction.
struct Writer {
    octets: Vec<u8>,
    /// Where names are that a pointer can reach.
    names: HashMap<Vec<u8>, u16>,
}

impl Writer {
    fn record(&mut self, record: &ResourceRecord) -> Option<()> {
        self.name(&record.owner);
        self.octets.extend(record.rtype.to_be_bytes());
        self.octets.extend(record.class.to_be_bytes());
        self.octets.extend(record.ttl.to_be_bytes());
        let length = self.octets.len();
        self.octets.extend([0, 0]);
        match names_in(record.rtype, &record.rdata).filter(|_| is_compressible(record.rtype)) {
            Some((before, count)) => {
                let (fixed, mut rest) = record.rdata.split_at_checked(before)?;
                self.octets.extend(fixed);
                for _ in 0..count {
                    let (name, behind) = rest.split_at_checked(name_len(rest)?)?;
                    self.name(name);
                    rest = behind;
                }
                self.octets.extend(rest);
            }
            None => self.octets.extend(&record.rdata),
        }
        let written = u16::try_from(self.octets.len() - length - 2).ok()?;
        self.octets.get_mut(length..length + 2)?.copy_from_slice(&written.to_be_bytes());
        (self.octets.len() <= MAX_MESSAGE).then_some(())
    }

    /// Writes a name: its front labels, and a pointer to the rest if that is somewhere.
    fn name(&mut self, mut name: &[u8]) {
        while let Some((&len @ 1.., _)) = name.split_first() {
            if let Some(at) = self.names.get(name) {
                self.octets.extend((0xc000 | at).to_be_bytes());
                return;
            }
            if let Ok(at) = u16::try_from(self.octets.len())
                && usize::from(at) < POINTER_END
            {
                self.names.insert(name.to_vec(), at);
            }
            let Some((label, rest)) = name.split_at_checked(1 + usize::from(len)) else { break };
            self.octets.extend(label);
            name = rest;
        }
        self.octets.push(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reply to `a.test IN A` with one record in each section, all of them compressed, and an OPT.
    fn reply() -> Vec<u8> {
        let mut octets = vec![7, 7, 0x81, 0x80, 0, 1, 0, 1, 0, 1, 0, 3];
        octets.extend(b"\x01a\x04test\x00\x00\x01\x00\x01");
        // a.test CNAME b.test
        octets.extend(b"\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x1e\x00\x04\x01b\xc0\x0e");
        // test SOA b.test a.test
        octets.extend(b"\xc0\x0e\x00\x06\x00\x01\x00\x00\x00\x1e\x00\x18\xc0\x24\xc0\x0c");
        octets.extend([9; 20]);
        // b.test SRV 1 2 3 a.test, compressed against RFC 2782
        octets.extend(b"\xc0\x24\x00\x21\x00\x01\x00\x00\x00\x1e\x00\x08\x00\x01\x00\x02\x00\x03\xc0\x0c");
        // b.test TYPE65280, of which nothing is known
        octets.extend(b"\xc0\x24\xff\x00\x00\x01\x00\x00\x00\x1e\x00\x02\xc0\x0c");
        octets.extend([0, 0, 41, 4, 208, 1, 0, 0, 0, 0, 0]);
        octets
    }

    #[test]
    fn what_is_read_is_written() {
        let message = Message::read(&reply()).unwrap();
        let [answers, authorities, additionals] = &message.sections;
        assert_eq!(answers[0].owner, b"\x01a\x04test\x00");
        assert_eq!(answers[0].rdata, b"\x01b\x04test\x00");
        assert_eq!(authorities[0].rdata[..16], *b"\x01b\x04test\x00\x01a\x04test\x00");
        assert_eq!(additionals[0].name(), Some(6..14));
        assert_eq!(additionals[1].rdata, [0xc0, 0x0c]);
        assert_eq!((additionals[1].name(), additionals[2].ttl), (None, 0x0100_0000));
        assert_eq!(message.rcode(), Rcode(16));
        let octets = message.to_octets().unwrap();
        assert_eq!(Message::read(&octets).unwrap(), message);
        // Only SRV's target has grown.
        assert_eq!(octets.len(), reply().len() + 6);
    }

    #[test]
    fn what_is_broken_is_refused() {
        let whole = reply();
        for end in 0..whole.len() {
            assert_eq!(Message::read(&whole[..end]), None, "{end} octets");
        }
        for (at, octet) in [(5, 2), (25, 25), (39, 0x24), (36, 0xff)] {
            let mut broken = whole.clone();
            broken[at] = octet;
            assert_eq!(Message::read(&broken), None, "octet {at}");
        }
    }

    /// Whatever an upstream sends, nothing is lost or made up, and nothing panics.
    #[test]
    fn hostile_octets_do_no_harm() {
        let (whole, mut random, mut readable) = (reply(), 1u32, 0);
        for _ in 0..50_000 {
            let mut octets = whole.clone();
            for _ in 0..3 {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = 12 + (random >> 8) as usize % (octets.len() - 12);
                octets[at] = (random >> 24) as u8;
            }
            let Some(message) = Message::read(&octets) else { continue };
            readable += 1;
            let written = message.to_octets().unwrap();
            assert_eq!(Message::read(&written).as_ref(), Some(&message), "{octets:02x?}");
        }
        assert!(readable > 1000, "{readable}");
    }

    /// A name of 250 octets can be written in two, and then be too long to be written out.
    #[test]
    fn what_grows_too_long_is_refused() {
        let owner = [&[1, b'a'].repeat(124)[..], &[0]].concat();
        let record = ResourceRecord { owner, rtype: 33, class: 1, ttl: 0, rdata: [0; 300].to_vec() };
        let mut message = Message::read(&reply()).unwrap();
        message.sections[0] = vec![record; 200];
        assert!(message.to_octets().is_some());
        message.sections[0].extend_from_within(..10);
        message.sections[0].extend_from_within(..);
        assert_eq!(message.to_octets(), None);
    }

    #[test]
    fn response_codes_are_changed() {
        let mut message = Message::read(&reply()).unwrap();
        message.set_rcode(Rcode::NXDOMAIN);
        assert_eq!((message.rcode(), message.sections[2][2].ttl), (Rcode::NXDOMAIN, 0));
        message.set_rcode(Rcode(23));
        assert_eq!(message.rcode(), Rcode(23));
        message.sections[2].clear();
        message.set_rcode(Rcode(23));
        assert_eq!(message.rcode(), Rcode::SERVFAIL);
        let refusal = message.refusal(Rcode::REFUSED);
        assert_eq!((refusal.rcode(), refusal.question.len()), (Rcode::REFUSED, 12));
    }
}
