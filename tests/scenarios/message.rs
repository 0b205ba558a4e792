//! Messages of a scenario: queries and upstream answers as octets, replies read back by hickory.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use hickory_proto::op::{Edns, Message};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{RData, Record, RecordType};

/// A client's query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    pub name: String,
    pub qtype: u16,
    pub dnssec_ok: bool,
    pub checking_disabled: bool,
    pub authentic_data: bool,
    pub without_recursion: bool,
    pub edns: Option<u16>,
    pub chaos: bool,
}

/// What the upstream says.
#[derive(Debug, Clone, Default)]
pub struct Response {
    pub rcode: u8,
    pub authoritative: bool,
    pub authentic: bool,
    pub truncated: bool,
    /// The question it answers, if that is not the one asked.
    pub instead: Option<String>,
    /// Sections answer, authority, additional.
    pub sections: [Vec<Entry>; 3],
}

/// A record; owner `@` is the question's name.
#[derive(Debug, Clone)]
pub struct Entry {
    pub owner: String,
    pub ttl: u32,
    pub rtype: u16,
    pub rdata: Vec<u8>,
}

impl Query {
    /// The octets, under `id`.
    pub fn octets(&self, id: u16) -> Vec<u8> {
        let flags = u16::from(!self.without_recursion) << 8
            | u16::from(self.authentic_data) << 5
            | u16::from(self.checking_disabled) << 4;
        let additionals = u16::from(self.has_opt());
        let mut octets: Vec<u8> =
            [id, flags, 1, 0, 0, additionals].into_iter().flat_map(u16::to_be_bytes).collect();
        octets.extend(self.question());
        if self.has_opt() {
            octets.extend([0, 0, 41]);
            octets.extend(self.edns.unwrap_or(1232).to_be_bytes());
            octets.extend([0, 0, if self.dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]);
        }
        octets
    }

    fn question(&self) -> Vec<u8> {
        let mut octets = name(&self.name);
        octets.extend(self.qtype.to_be_bytes());
        octets.extend([0, if self.chaos { 3 } else { 1 }]);
        octets
    }

    fn has_opt(&self) -> bool {
        self.dnssec_ok || self.edns.is_some()
    }
}

impl Response {
    /// The octets that answer `query`.
    pub fn octets(&self, query: &[u8]) -> Vec<u8> {
        let asked = question(query);
        let flags = 0x8080
            | u16::from_be_bytes([query[2], query[3]]) & 0x0110
            | u16::from(self.authoritative) << 10
            | u16::from(self.truncated) << 9
            | u16::from(self.authentic) << 5
            | u16::from(self.rcode);
        let [answers, authorities, additionals] =
            self.sections.each_ref().map(|section| section.len() as u16);
        let has_opt = query[11] > 0;
        let counts = [flags, 1, answers, authorities, additionals + u16::from(has_opt)];
        let mut octets = query[..2].to_vec();
        octets.extend(counts.into_iter().flat_map(u16::to_be_bytes));
        match &self.instead {
            Some(other) => octets.extend([name(other), asked[asked.len() - 4..].to_vec()].concat()),
            None => octets.extend_from_slice(asked),
        }
        for entry in self.sections.iter().flatten() {
            match entry.owner.as_str() {
                "@" => octets.extend([0xc0, 12]),
                owner => octets.extend(name(owner)),
            }
            octets.extend(entry.rtype.to_be_bytes());
            octets.extend([0, 1]);
            octets.extend(entry.ttl.to_be_bytes());
            octets.extend((entry.rdata.len() as u16).to_be_bytes());
            octets.extend_from_slice(&entry.rdata);
        }
        if has_opt {
            // The query's own, which is what it ends with.
            octets.extend_from_slice(&query[query.len() - 11..]);
        }
        octets
    }
}

impl Entry {
    /// Reads `OWNER TTL TYPE DATA`; an SOA's data is its MINIMUM, a TXT's its length, an RRSIG's
    /// its expiration in seconds since 1970.
    pub fn parse(text: &str) -> Result<Entry, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [owner, ttl, rtype, data] = words[..] else {
            return Err(format!("`{text}` is no OWNER TTL TYPE DATA"));
        };
        let broken = |_| format!("`{text}` has no number where it should");
        let number = |text: &str| text.parse::<u32>().map_err(broken);
        let address = |_| format!("`{data}` is no address");
        let rdata = match rtype {
            "A" => data.parse::<Ipv4Addr>().map_err(address)?.octets().to_vec(),
            "AAAA" => data.parse::<Ipv6Addr>().map_err(address)?.octets().to_vec(),
            "CNAME" | "NS" => name(data),
            "SOA" => [vec![0, 0], vec![0; 16], number(data)?.to_be_bytes().to_vec()].concat(),
            "TXT" => {
                let octets = vec![b'x'; number(data)? as usize];
                octets.chunks(255).flat_map(|part| [&[part.len() as u8], part].concat()).collect()
            }
            "RRSIG" => rrsig(number(data)?),
            _ => return Err(format!("no way to write {rtype} data")),
        };
        Ok(Entry { owner: owner.to_owned(), ttl: number(ttl)?, rtype: record_type(rtype)?, rdata })
    }
}

/// A signature by the root over an A record, RFC 4034 §3.1.
fn rrsig(expiration: u32) -> Vec<u8> {
    let mut rdata = vec![0, 1, 8, 2, 0, 0, 1, 44];
    rdata.extend(expiration.to_be_bytes());
    rdata.extend([0, 0, 0, 0, 0, 7, 0]);
    rdata.extend([0xab; 16]);
    rdata
}

/// A reply to one of a scenario's queries, found to fit it.
#[derive(Debug)]
pub struct Reply {
    pub message: Message,
}

impl Reply {
    /// Decodes `octets` and checks what every reply to `query` must have: its id, its spelling of the
    /// question, its RD and CD, an OPT if and only if it had one, at most its payload size.
    pub fn read(octets: &[u8], query: &Query, id: u16) -> Result<Reply, String> {
        let message = Message::from_vec(octets).map_err(|error| format!("unreadable reply: {error}"))?;
        let asked = query.octets(id);
        let limit = usize::from(query.edns.unwrap_or(if query.has_opt() { 1232 } else { 512 }));
        let same = [
            ("id", octets[..2] == asked[..2]),
            ("QR", octets[2] & 0x80 != 0),
            (
                "spelling of the question",
                octets.get(12..12 + query.question().len()) == Some(&query.question()),
            ),
            ("RD", octets[2] & 1 == asked[2] & 1),
            ("CD", octets[3] & 0x10 == asked[3] & 0x10),
            ("OPT", message.edns.is_some() == query.has_opt()),
            ("DO", message.edns.as_ref().is_some_and(dnssec_ok) == query.dnssec_ok),
            ("payload size", octets.len() <= limit),
        ];
        match same.iter().find(|(_, same)| !same) {
            Some((what, _)) => Err(format!("the reply has not the query's {what}")),
            None => Ok(Reply { message }),
        }
    }

    /// Every record but the OPT.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.message.all_sections()
    }

    /// The info code of the OPT's extended error option (RFC 8914 §2).
    pub fn extended_error(&self) -> Option<u16> {
        let options = self.message.edns.as_ref()?.options();
        match options.get(EdnsCode::Unknown(15))? {
            EdnsOption::Unknown(_, data) => Some(u16::from_be_bytes([*data.first()?, *data.get(1)?])),
            _ => None,
        }
    }

    /// The addresses in the answer section.
    pub fn addresses(&self) -> Vec<String> {
        let address = |record: &Record| match &record.data {
            RData::A(a) => Some(a.to_string()),
            RData::AAAA(aaaa) => Some(aaaa.to_string()),
            _ => None,
        };
        self.message.answers.iter().filter_map(address).collect()
    }
}

fn dnssec_ok(edns: &Edns) -> bool {
    edns.flags().dnssec_ok
}

/// The question section of a message with one uncompressed question.
pub fn question(message: &[u8]) -> &[u8] {
    let mut at = 12;
    while message[at] != 0 {
        at += 1 + usize::from(message[at]);
    }
    &message[12..at + 5]
}

/// The number of a record type.
pub fn record_type(text: &str) -> Result<u16, String> {
    RecordType::from_str(text).map(u16::from).map_err(|_| format!("`{text}` is no record type"))
}

/// A name in wire format, spelt as it is.
pub fn name(text: &str) -> Vec<u8> {
    let labels = text.split('.').filter(|label| !label.is_empty());
    let mut wire: Vec<u8> =
        labels.flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
    wire.push(0);
    wire
}
