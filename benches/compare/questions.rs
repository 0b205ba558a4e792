//! What the load client asks.

use std::fmt::Write;

/// Where questions come from and answers go to.
pub trait Questions {
    /// Writes the next question, with any message id, and returns its length and a tag. The latency of
    /// one without a tag is not taken.
    fn ask(&mut self, room: &mut [u8]) -> (usize, Option<u32>);

    /// The question with this tag was answered.
    fn answered(&mut self, _tag: u32, _reply: &[u8]) {}
}

/// The zone of all questions; [`crate::upstream`] serves it.
pub const ZONE: &str = "svc.cluster.bench";
/// Names of the working set: `h0` to `h999`.
pub const WARM: usize = 1000;

/// A kind of question whose answer a cache holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    A,
    Aaaa,
    NxDomain,
    MixedCase,
    Edns,
    /// 24 addresses, for a client that takes 1232 octets.
    Large,
}

/// The same questions again and again.
pub struct Cycle {
    messages: Vec<Vec<u8>>,
    at: usize,
}

impl Cycle {
    /// The working set, in this shape.
    pub fn warm(shape: Shape) -> Cycle {
        Cycle::of(shape, "h", WARM)
    }

    /// `count` names of their own, `{label}0.wild` and so on.
    pub fn wild(label: &str, count: usize) -> Cycle {
        let name = |serial| format!("{label}{serial}.wild.{ZONE}");
        Cycle { messages: (0..count).map(|serial| message(&name(serial), A, false)).collect(), at: 0 }
    }

    fn of(shape: Shape, label: &str, count: usize) -> Cycle {
        let ask = |serial: usize| {
            let name = format!("{label}{serial}.{ZONE}");
            match shape {
                Shape::A => message(&name, A, false),
                Shape::Aaaa => message(&name, AAAA, false),
                Shape::NxDomain => message(&format!("no{serial}.{ZONE}"), A, false),
                Shape::MixedCase => message(&mixed(&name), A, false),
                Shape::Edns => message(&name, A, true),
                Shape::Large => message(&format!("large{}.{ZONE}", serial % 100), A, true),
            }
        };
        Cycle { messages: (0..count).map(ask).collect(), at: 0 }
    }
}

impl Questions for Cycle {
    fn ask(&mut self, room: &mut [u8]) -> (usize, Option<u32>) {
        let tag = self.at;
        self.at = (self.at + 1) % self.messages.len();
        let message = &self.messages[tag];
        room[..message.len()].copy_from_slice(message);
        (message.len(), Some(tag as u32))
    }
}

/// A name that nobody asked for before, each time.
pub struct Fresh {
    label: String,
    serial: u64,
    name: String,
}

impl Fresh {
    /// `label` tells it from every other.
    pub fn new(label: &str) -> Fresh {
        Fresh { label: label.to_owned(), serial: 0, name: String::new() }
    }
}

impl Questions for Fresh {
    fn ask(&mut self, room: &mut [u8]) -> (usize, Option<u32>) {
        self.serial += 1;
        self.name.clear();
        // Writing to a String cannot fail.
        let _ = write!(self.name, "{}{:x}.wild.{ZONE}", self.label, self.serial);
        (write_message(room, &self.name, A, false), Some(0))
    }
}

/// The working set, watched for answers that were fetched anew (their TTL is higher than before), alone
/// or in a flood of names that nobody asked for before.
pub struct Watch {
    cycle: Cycle,
    ttls: Vec<u32>,
    flood: Fresh,
    /// Names of the flood to each of the working set.
    flooding: u64,
    asked: u64,
    answered: u64,
    refetched: u64,
}

impl Watch {
    /// The working set alone.
    pub fn warm() -> Watch {
        let (cycle, flood) = (Cycle::warm(Shape::A), Fresh::new("flood"));
        Watch { cycle, ttls: vec![u32::MAX; WARM], flood, flooding: 0, asked: 0, answered: 0, refetched: 0 }
    }

    /// From now on, `names` of the flood to each of the working set; counts anew.
    pub fn flood(&mut self, names: u64) {
        (self.flooding, self.answered, self.refetched) = (names, 0, 0);
    }

    /// Share of the working set's answers that came from the cache.
    pub fn hit_ratio(&self) -> f64 {
        1.0 - self.refetched as f64 / self.answered.max(1) as f64
    }
}

impl Questions for Watch {
    fn ask(&mut self, room: &mut [u8]) -> (usize, Option<u32>) {
        self.asked += 1;
        if self.asked.is_multiple_of(self.flooding + 1) {
            return self.cycle.ask(room);
        }
        (self.flood.ask(room).0, None)
    }

    fn answered(&mut self, tag: u32, reply: &[u8]) {
        self.answered += 1;
        let last = &mut self.ttls[tag as usize];
        // An answer without a record is none from the cache either.
        let ttl = first_ttl(reply).unwrap_or(u32::MAX);
        self.refetched += u64::from(ttl > *last || ttl == u32::MAX);
        *last = ttl;
    }
}

/// Record type of an IPv4 address.
pub const A: u16 = 1;
const AAAA: u16 = 28;
const HEADER: usize = 12;

/// A query for `name` (RFC 1035 §4.1), with an OPT for 1232 octets if asked (RFC 6891 §6.1.2).
pub fn message(name: &str, qtype: u16, edns: bool) -> Vec<u8> {
    let mut room = [0; 512];
    let len = write_message(&mut room, name, qtype, edns);
    room[..len].to_vec()
}

fn write_message(room: &mut [u8], name: &str, qtype: u16, edns: bool) -> usize {
    room[..HEADER].copy_from_slice(&[0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)]);
    let mut at = HEADER;
    let mut put = |octets: &[u8]| {
        room[at..at + octets.len()].copy_from_slice(octets);
        at += octets.len();
    };
    for label in name.split('.') {
        put(&[label.len() as u8]);
        put(label.as_bytes());
    }
    let [high, low] = qtype.to_be_bytes();
    put(&[0, high, low, 0, 1]);
    if edns {
        put(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    }
    at
}

/// Every other letter in upper case, as resolvers that use 0x20 send.
fn mixed(name: &str) -> String {
    let turn = |(at, letter): (usize, char)| if at % 2 == 0 { letter.to_ascii_uppercase() } else { letter };
    name.chars().enumerate().map(turn).collect()
}

/// The TTL of the first record.
fn first_ttl(reply: &[u8]) -> Option<u32> {
    let question_end = skip_name(reply, HEADER)? + 4;
    let ttl = skip_name(reply, question_end)? + 4;
    reply.get(ttl..ttl + 4)?.try_into().ok().map(u32::from_be_bytes)
}

fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            192.. => return Some(at + 2),
            len => at += 1 + usize::from(len),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rising_ttl_is_a_fetch() {
        let mut reply = message("h0.x", A, false);
        reply.extend([192, 12, 0, 1, 0, 1, 0, 0, 14, 16, 0, 4, 127, 0, 0, 1]);
        assert_eq!(first_ttl(&reply), Some(3600));
        let mut watch = Watch::warm();
        watch.answered(0, &reply);
        let ttl_at = reply.len() - 7;
        for (ttl, refetched) in [(15, 0), (14, 0), (16, 1), (16, 1)] {
            reply[ttl_at] = ttl;
            watch.answered(0, &reply);
            assert_eq!(watch.refetched, refetched);
        }
    }

    #[test]
    fn every_fresh_name_is_another() {
        let (mut fresh, mut one, mut other) = (Fresh::new("f"), [0; 512], [0; 512]);
        let len = fresh.ask(&mut one).0;
        fresh.ask(&mut other);
        assert_ne!(one[..len], other[..len]);
        assert_eq!(&one[12..20], b"\x02f1\x04wild");
    }
}
