//! What rules make of an answer.

use std::ops::RangeInclusive;

use super::rule::{AnswerPart, substitute};
use super::{Name, write_text};
use crate::wire::{Message, Rcode, ResourceRecord, record_type};

/// One thing to do to an answer.
pub(super) enum Change<'r> {
    /// To a part of each record.
    Name(AnswerPart, Rename<'r>),
    /// TTLs come into this range.
    Ttl(&'r RangeInclusive<u32>),
    /// This response code becomes that one.
    Rcode { from: u16, to: u16 },
}

/// How a name is changed. Texts end with a dot, as names do.
#[derive(Clone)]
pub(super) enum Rename<'r> {
    /// This name, and what is below it.
    Domain { from: String, to: String },
    /// Whatever ends so.
    Suffix { from: &'r str, to: &'r str },
    /// The whole of what this matches.
    Regex { pattern: &'r regex::Regex, to: &'r str },
}

/// Does `changes` to `reply`, the last one first, as they were made to the question.
pub(super) fn apply(changes: &[Change<'_>], reply: &mut Message) {
    for change in changes.iter().rev() {
        let records = reply.sections.iter_mut().flatten().filter(|record| record.rtype != record_type::OPT);
        match change {
            Change::Name(part, rename) => records.for_each(|record| rename.apply(*part, record)),
            Change::Ttl(range) => {
                records.for_each(|record| record.ttl = record.ttl.clamp(*range.start(), *range.end()));
            }
            Change::Rcode { from, to } if reply.rcode().0 == *from => reply.set_rcode(Rcode(*to)),
            Change::Rcode { .. } => {}
        }
    }
}

impl Rename<'_> {
    fn apply(&self, part: AnswerPart, record: &mut ResourceRecord) {
        match part {
            AnswerPart::Name => {
                if let Some(name) = self.renamed(&record.owner) {
                    record.owner = name;
                }
            }
            AnswerPart::Value if !POINTERS.contains(&record.rtype) => {}
            AnswerPart::Value => {
                let Some(place) = record.name() else { return };
                if let Some(name) = record.rdata.get(place.clone()).and_then(|name| self.renamed(name)) {
                    record.rdata.splice(place, name);
                }
            }
        }
    }

    /// The wire octets of what comes for `name`; `None` if it stays as it is, or there is no such name.
    fn renamed(&self, name: &[u8]) -> Option<Vec<u8>> {
        let mut text = String::new();
        // A String takes everything.
        let _ = write_text(name, &mut text);
        let renamed = match self {
            Rename::Domain { from, to } => {
                let rest = text.strip_suffix(from.as_str())?;
                (rest.is_empty() || rest.ends_with('.')).then(|| format!("{rest}{to}"))?
            }
            Rename::Suffix { from, to } => format!("{}{to}", text.strip_suffix(from)?),
            Rename::Regex { pattern, to } => substitute(pattern, &text, to)?,
        };
        Some(Name::from_text(&renamed).ok()?.as_wire().to_vec())
    }
}

/// Types that CoreDNS knows to point to a name: NS, CNAME, SOA (its first), PTR, MX, SRV, NAPTR, DNAME.
const POINTERS: [u16; 8] = [2, 5, 6, 12, 15, 33, 35, 39];
