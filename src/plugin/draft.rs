//! A reply under construction.

use crate::wire::{Flags, HEADER, MAX_MESSAGE, Query, Rcode};

/// Where a record goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Section {
    Answer,
    Authority,
    Additional,
}

/// An authoritative reply, whole at any time.
pub(super) struct Draft {
    octets: Vec<u8>,
    /// Of the question's name.
    name: usize,
}

/// A pointer to the question's name (RFC 1035 §4.1.4).
const TO_QUESTION: [u8; 2] = [0xc0, HEADER as u8];

impl Draft {
    /// The reply to `query` without records.
    pub fn new(query: &Query<'_>, rcode: Rcode) -> Draft {
        let asked = query.flags().0 & (Flags::OPCODE | Flags::RD | Flags::CD);
        let flags = Flags::QR | Flags::AA | asked | rcode.0 & Flags::RCODE;
        let mut octets = vec![0; HEADER];
        octets[..2].copy_from_slice(&query.id());
        octets[2..4].copy_from_slice(&flags.to_be_bytes());
        octets[5] = 1;
        octets.extend(query.question());
        Draft { octets, name: query.name().len() }
    }

    /// Adds a record of uncompressed wire octets, sections in their order. One that has no room is left out.
    ///
    /// Where its owner is the question's name, it is so as each client spells it, like an upstream's; CoreDNS has it
    /// in lower case.
    pub fn add(&mut self, section: Section, record: &[u8]) {
        let name = &self.octets[HEADER..HEADER + self.name];
        let own = record.get(..self.name).filter(|owner| owner.eq_ignore_ascii_case(name) && self.name > 1);
        let (owner, rest) = match own {
            Some(_) => (&TO_QUESTION[..], &record[self.name..]),
            None => (&[][..], record),
        };
        if self.octets.len() + owner.len() + rest.len() > MAX_MESSAGE {
            return;
        }
        self.octets.extend(owner);
        self.octets.extend(rest);
        let count = HEADER - 6 + 2 * section as usize;
        let records = u16::from_be_bytes([self.octets[count], self.octets[count + 1]]) + 1;
        self.octets[count..count + 2].copy_from_slice(&records.to_be_bytes());
    }

    /// The message.
    pub fn finish(self) -> Vec<u8> {
        self.octets
    }
}

/// An uncompressed record of class IN.
pub(super) fn record(owner: &[u8], rtype: u16, ttl: u32, rdata: &[u8]) -> Vec<u8> {
    record_of(owner, rtype, 1, ttl, rdata)
}

/// An uncompressed record.
pub(super) fn record_of(owner: &[u8], rtype: u16, class: u16, ttl: u32, rdata: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rdata.len()).unwrap_or(u16::MAX);
    let [class, rtype, length] = [class, rtype, length].map(u16::to_be_bytes);
    [owner, &rtype, &class, &ttl.to_be_bytes(), &length, rdata].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: &[u8] = b"\x12\x34\x01\x10\0\x01\0\0\0\0\0\0\x01A\x04test\0\0\x01\0\x01";
    const NAME: &[u8] = b"\x01a\x04test\0";

    fn draft(rcode: Rcode) -> Option<Draft> {
        Query::parse(QUERY).ok().map(|query| Draft::new(&query, rcode))
    }

    #[test]
    fn an_empty_reply_has_the_question_as_spelt() {
        let reply = draft(Rcode::NXDOMAIN).map(Draft::finish).unwrap_or_default();
        assert_eq!(reply[..12], *b"\x12\x34\x85\x13\0\x01\0\0\0\0\0\0");
        assert_eq!(reply[12..], QUERY[12..]);
    }

    /// RFC 1035 §4.1.1: the operation is copied into the response.
    #[test]
    fn a_notification_gets_the_reply_to_one() {
        let mut notify = QUERY.to_vec();
        notify[2] = 0x20;
        let reply = Query::parse(&notify).map(|query| Draft::new(&query, Rcode::NOERROR).finish());
        assert_eq!(reply.map(|reply| reply[2]), Ok(0xa4));
    }

    #[test]
    fn records_are_counted_in_their_sections() {
        let Some(mut draft) = draft(Rcode::NOERROR) else { panic!("no query") };
        draft.add(Section::Answer, &record(NAME, 1, 60, &[1, 2, 3, 4]));
        draft.add(Section::Answer, &record(NAME, 1, 60, &[1, 2, 3, 5]));
        draft.add(Section::Authority, &record(b"\x04test\0", 2, 60, b"\x01a\0"));
        draft.add(Section::Additional, &record(b"\0", 1, 60, &[1, 2, 3, 4]));
        let reply = draft.finish();
        assert_eq!(reply[4..12], [0, 1, 0, 2, 0, 1, 0, 1]);
        let records = &reply[QUERY.len()..];
        assert_eq!(records[..16], *b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x01\x02\x03\x04");
        assert_eq!(records[32..38], *b"\x04test\0");
    }

    #[test]
    fn what_has_no_room_is_left_out() {
        let Some(mut draft) = draft(Rcode::NOERROR) else { panic!("no query") };
        let large = record(NAME, 16, 60, &[0; 40_000]);
        draft.add(Section::Answer, &large);
        draft.add(Section::Answer, &large);
        let reply = draft.finish();
        assert_eq!((reply[7], reply.len() < 65_536), (1, true));
    }
}
