//! DNS messages as octets: building queries, right and wrong ones, and taking answers apart.

#![allow(dead_code, reason = "each suite uses its own part")]

/// Record types by number.
pub mod rr {
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const TXT: u16 = 16;
    pub const AAAA: u16 = 28;
    pub const OPT: u16 = 41;
    pub const DS: u16 = 43;
}

/// Bits of the header's second word.
pub mod bit {
    pub const QR: u16 = 0x8000;
    pub const AA: u16 = 0x0400;
    pub const TC: u16 = 0x0200;
    pub const RD: u16 = 0x0100;
    pub const RA: u16 = 0x0080;
    pub const AD: u16 = 0x0020;
    pub const CD: u16 = 0x0010;
}

/// A query under construction.
#[derive(Debug, Clone)]
pub struct Ask {
    octets: Vec<u8>,
}

/// A query for the addresses of `name`: id 0x1234, RD, class IN, no EDNS.
pub fn ask(name: &str) -> Ask {
    let mut octets = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    octets.extend(wire_name(name));
    octets.extend([0, 1, 0, 1]);
    Ask { octets }
}

/// A name in wire form; `\.` and `\DDD` escape as in zone files.
pub fn wire_name(text: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut label = Vec::new();
    let mut octets = text.trim_end_matches('.').bytes();
    while let Some(octet) = octets.next() {
        match octet {
            b'.' => {
                wire.push(u8::try_from(label.len()).unwrap());
                wire.append(&mut label);
            }
            b'\\' => match octets.next().unwrap() {
                digit @ b'0'..=b'9' => {
                    let digits = [digit, octets.next().unwrap(), octets.next().unwrap()];
                    label.push(std::str::from_utf8(&digits).unwrap().parse().unwrap());
                }
                other => label.push(other),
            },
            other => label.push(other),
        }
    }
    if !label.is_empty() {
        wire.push(u8::try_from(label.len()).unwrap());
        wire.append(&mut label);
    }
    wire.push(0);
    wire
}

impl Ask {
    pub fn id(mut self, id: u16) -> Ask {
        self.octets[..2].copy_from_slice(&id.to_be_bytes());
        self
    }

    pub fn qtype(mut self, qtype: u16) -> Ask {
        let at = self.octets.len() - 4;
        self.octets[at..at + 2].copy_from_slice(&qtype.to_be_bytes());
        self
    }

    pub fn class(mut self, class: u16) -> Ask {
        let at = self.octets.len() - 2;
        self.octets[at..].copy_from_slice(&class.to_be_bytes());
        self
    }

    /// Sets `bits` in the flags.
    pub fn flags(mut self, bits: u16) -> Ask {
        let flags = u16::from_be_bytes([self.octets[2], self.octets[3]]) | bits;
        self.octets[2..4].copy_from_slice(&flags.to_be_bytes());
        self
    }

    pub fn opcode(self, opcode: u16) -> Ask {
        self.flags(opcode << 11)
    }

    /// Adds an OPT with this payload size.
    pub fn edns(self, size: u16) -> Ask {
        self.opt(size, 0, false, &[])
    }

    /// Adds an OPT.
    pub fn opt(self, size: u16, version: u8, dnssec_ok: bool, options: &[u8]) -> Ask {
        let [high, low] = size.to_be_bytes();
        let length = u16::try_from(options.len()).unwrap().to_be_bytes();
        let record = [&[0, 0, 41, high, low, 0, version, u8::from(dnssec_ok) << 7, 0], &length[..], options];
        self.additional(&record.concat())
    }

    /// Adds a record to the additional section. Call it after everything that concerns the question.
    pub fn additional(self, record: &[u8]) -> Ask {
        self.record(11, record)
    }

    /// Appends a record and counts it at octet `count` of the header.
    pub fn record(mut self, count: usize, record: &[u8]) -> Ask {
        self.octets[count] += 1;
        self.octets.extend(record);
        self
    }

    /// Sets an octet.
    pub fn octet(mut self, at: usize, value: u8) -> Ask {
        self.octets[at] = value;
        self
    }

    pub fn build(&self) -> Vec<u8> {
        self.octets.clone()
    }
}

/// An answer, taken apart without following any pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub octets: Vec<u8>,
    pub question: Vec<u8>,
    pub records: Vec<Record>,
}

/// A record as it stands on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// 1 answer, 2 authority, 3 additional.
    pub section: usize,
    pub owner: Vec<u8>,
    pub rtype: u16,
    pub class: u16,
    pub ttl: u32,
    pub rdata: Vec<u8>,
}

impl Answer {
    /// Panics unless the message is whole, without a stray octet at its end.
    #[track_caller]
    pub fn read(octets: &[u8]) -> Answer {
        assert!(octets.len() >= 12, "no header: {octets:02x?}");
        let count = |at: usize| usize::from(u16::from_be_bytes([octets[at], octets[at + 1]]));
        let mut at = 12;
        for _ in 0..count(4) {
            at = name_end(octets, at) + 4;
        }
        let question = octets[12..at].to_vec();
        let mut records = Vec::new();
        for section in 1..=3 {
            for _ in 0..count(4 + 2 * section) {
                let fixed = name_end(octets, at);
                let number = |at: usize| u16::from_be_bytes([octets[at], octets[at + 1]]);
                let rdata = fixed + 10;
                let end = rdata + usize::from(number(fixed + 8));
                records.push(Record {
                    section,
                    owner: octets[at..fixed].to_vec(),
                    rtype: number(fixed),
                    class: number(fixed + 2),
                    ttl: u32::from(number(fixed + 4)) << 16 | u32::from(number(fixed + 6)),
                    rdata: octets[rdata..end].to_vec(),
                });
                at = end;
            }
        }
        assert_eq!(at, octets.len(), "stray octets");
        Answer { octets: octets.to_vec(), question, records }
    }

    pub fn id(&self) -> u16 {
        u16::from_be_bytes([self.octets[0], self.octets[1]])
    }

    pub fn has(&self, bits: u16) -> bool {
        self.flags() & bits != 0
    }

    pub fn flags(&self) -> u16 {
        u16::from_be_bytes([self.octets[2], self.octets[3]])
    }

    /// The response code, the OPT's part included.
    pub fn rcode(&self) -> u16 {
        let extended = self.opt().map_or(0, |opt| (opt.ttl >> 24) as u16);
        extended << 4 | self.flags() & 15
    }

    pub fn opt(&self) -> Option<&Record> {
        self.records.iter().find(|record| record.rtype == rr::OPT)
    }

    /// The records of a section, OPT left out.
    pub fn section(&self, section: usize) -> Vec<&Record> {
        let wanted = |record: &&Record| record.section == section && record.rtype != rr::OPT;
        self.records.iter().filter(wanted).collect()
    }

    /// Least TTL of the answer section.
    pub fn ttl(&self) -> u32 {
        self.section(1).iter().map(|record| record.ttl).min().unwrap()
    }
}

fn name_end(octets: &[u8], mut at: usize) -> usize {
    loop {
        match octets[at] {
            0 => return at + 1,
            192.. => return at + 2,
            length => at += 1 + usize::from(length),
        }
    }
}
