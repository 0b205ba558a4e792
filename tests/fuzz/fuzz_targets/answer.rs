//! What an upstream says reaches the client: the same records, but for their TTL and the OPT.

#![no_main]

use doorstep::wire::{Answer, MAX_MESSAGE, Query, REPLY_ROOM, Reply, Terms};
use hickory_proto::op::Message;
use hickory_proto::rr::Record;
use libfuzzer_sys::fuzz_target;

#[derive(Debug, arbitrary::Arbitrary)]
struct Input {
    name: Vec<u8>,
    qtype: u8,
    /// Payload size and DO of the client.
    edns: Option<(u16, bool)>,
    limit: u16,
    ttl: Option<u32>,
    response: Response,
}

#[derive(Debug, arbitrary::Arbitrary)]
enum Response {
    /// Octets without form.
    Raw(Vec<u8>),
    /// Octets behind a header and the question.
    Behind { flags: u16, counts: [u8; 3], rest: Vec<u8> },
    /// Records, the counts all but right.
    Records { flags: u16, sections: [Vec<Entry>; 3], wrong: Option<u8>, without_question: bool },
}

#[derive(Debug, arbitrary::Arbitrary)]
struct Entry {
    owner: Owner,
    rtype: Type,
    ttl: u32,
    rdata: Rdata,
}

#[derive(Debug, arbitrary::Arbitrary)]
enum Owner {
    Question,
    Root,
    Label(u8, [u8; 4]),
    Pointer(u16),
}

#[derive(Debug, arbitrary::Arbitrary)]
enum Type {
    A,
    Ns,
    Cname,
    Soa,
    Opt,
    Rrsig,
    Txt,
    Other(u16),
}

#[derive(Debug, arbitrary::Arbitrary)]
enum Rdata {
    Fit([u8; 4]),
    Octets(Vec<u8>),
    Long(u16),
}

fuzz_target!(|input: Input| {
    let question = question(&input.name, input.qtype);
    let packet = query(&question, input.edns);
    let query = Query::parse(&packet).expect("a plain query");
    let response = input.response.octets(&question);
    if response.len() > MAX_MESSAGE {
        return;
    }
    let Ok((answer, _)) = Answer::scan(&response, &question) else {
        return;
    };
    let terms = Terms { ttl: input.ttl, authoritative: input.limit & 1 == 1, extended_error: None };
    let mut out = vec![0; REPLY_ROOM];
    let len = Reply::from_answer(&mut out, &query, &answer, terms, None, MAX_MESSAGE);
    let whole = out[..len].to_vec();
    let limit = usize::from(input.limit).max(512);
    let len = Reply::from_answer(&mut out, &query, &answer, terms, None, limit);
    assert!((12..=limit).contains(&len));
    for reply in [&whole, &out[..len]] {
        assert_eq!(reply[..2], query.id());
        assert_eq!(reply[2] & 0x80, 0x80);
        assert_eq!(reply[12..12 + question.len()], question);
    }
    if points_elsewhere(&response[12..]) {
        return;
    }
    let Ok(said) = Message::from_vec(&response) else {
        return;
    };
    let seen = Message::from_vec(&whole).expect("what was readable stays so");
    for (said, seen) in sections(&said).into_iter().zip(sections(&seen)) {
        assert_eq!(said, seen);
    }
    assert_eq!(seen.edns.is_some(), query.edns().is_some());
    assert!(input.ttl.is_none_or(|ttl| seen.all_sections().all(|record| record.ttl == ttl)));

    let cut = Message::from_vec(&out[..len]).expect("what was cut stays readable");
    for (whole, part) in sections(&seen).into_iter().zip(sections(&cut)) {
        assert!(whole.starts_with(&part));
    }
    let missing = cut.answers.len() + cut.authorities.len() < seen.answers.len() + seen.authorities.len();
    assert!(cut.metadata.truncation == (missing || seen.metadata.truncation));
});

/// Whether a pointer may lead anywhere but to the question: into a header or a TTL, which change, or
/// to what moves when an OPT before it is taken out.
fn points_elsewhere(records: &[u8]) -> bool {
    records.windows(2).any(|pair| pair[0] >= 0xc0 && pair != [0xc0, 12])
}

/// Each section's records without their TTL.
fn sections(message: &Message) -> [Vec<String>; 3] {
    let text = |record: &Record| {
        let name = record.name.to_ascii().to_ascii_lowercase();
        format!("{name} {:?} {:?} {:?}", record.dns_class, record.record_type(), record.data).to_lowercase()
    };
    [&message.answers, &message.authorities, &message.additionals]
        .map(|section| section.iter().map(text).collect())
}

/// A question with a name made of `name`'s octets.
fn question(name: &[u8], qtype: u8) -> Vec<u8> {
    let mut question = Vec::new();
    for label in name.chunks(13).take(8) {
        question.push(label.len() as u8);
        question.extend_from_slice(label);
    }
    question.extend_from_slice(&[0, 0, qtype, 0, 1]);
    question
}

fn query(question: &[u8], edns: Option<(u16, bool)>) -> Vec<u8> {
    let mut packet = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())];
    packet.extend_from_slice(question);
    if let Some((size, dnssec_ok)) = edns {
        let [high, low] = size.to_be_bytes();
        packet.extend_from_slice(&[0, 0, 41, high, low, 0, 0, u8::from(dnssec_ok) << 7, 0, 0, 0]);
    }
    packet
}

impl Response {
    fn octets(self, question: &[u8]) -> Vec<u8> {
        let header = |flags: u16, questions: u8, counts: [u16; 3]| {
            let mut octets = vec![0, 0];
            octets.extend_from_slice(&(flags | 0x8000).to_be_bytes());
            octets.extend_from_slice(&[0, questions]);
            octets.extend(counts.into_iter().flat_map(u16::to_be_bytes));
            octets
        };
        match self {
            Response::Raw(octets) => octets,
            Response::Behind { flags, counts, rest } => {
                [&header(flags, 1, counts.map(u16::from))[..], question, &rest].concat()
            }
            Response::Records { flags, sections, wrong, without_question } => {
                let mut counts = sections.each_ref().map(|section| section.len() as u16);
                if let Some(wrong) = wrong {
                    counts[usize::from(wrong) % 3] += u16::from(wrong);
                }
                let mut octets = header(flags, u8::from(!without_question), counts);
                if !without_question {
                    octets.extend_from_slice(question);
                }
                for entry in sections.iter().flatten() {
                    entry.append(&mut octets);
                }
                octets
            }
        }
    }
}

impl Entry {
    fn append(&self, octets: &mut Vec<u8>) {
        match self.owner {
            Owner::Question => octets.extend_from_slice(&[0xc0, 12]),
            Owner::Root => octets.push(0),
            Owner::Label(len, label) => {
                let len = usize::from(len % 4) + 1;
                octets.push(len as u8);
                octets.extend_from_slice(&label[..len]);
                octets.extend_from_slice(&[0xc0, 12]);
            }
            Owner::Pointer(to) => octets.extend_from_slice(&(to | 0xc000).to_be_bytes()),
        }
        let (rtype, fit) = match self.rtype {
            Type::A => (1, 4),
            Type::Ns => (2, 6),
            Type::Cname => (5, 6),
            Type::Soa => (6, 22),
            Type::Opt => (41, 0),
            Type::Rrsig => (46, 40),
            Type::Txt => (16, 5),
            Type::Other(other) => (other, 4),
        };
        octets.extend_from_slice(&u16::to_be_bytes(rtype));
        octets.extend_from_slice(&[0, 1]);
        octets.extend_from_slice(&self.ttl.to_be_bytes());
        let rdata = match &self.rdata {
            Rdata::Fit(octets) => match rtype {
                2 | 5 => vec![3, octets[0], octets[1], octets[2], 0xc0, 12],
                16 => [&[4][..], octets].concat(),
                46 => [&[0, 1, 8, 2][..], &octets.repeat(3), &[0, 7, 0], &[1; 21]].concat(),
                6 => [&[0, 0][..], &octets.repeat(5)].concat(),
                _ => octets.iter().copied().cycle().take(fit).collect(),
            },
            Rdata::Octets(octets) => octets.clone(),
            Rdata::Long(len) => vec![7; usize::from(*len) % 4096],
        };
        octets.extend_from_slice(&(rdata.len() as u16).to_be_bytes());
        octets.extend_from_slice(&rdata);
    }
}
