//! A generator of octets that look like DNS, more or less. The same seed gives the same octets.

use super::message::ask;

/// xorshift64*.
pub struct Garbage(u64);

impl Garbage {
    pub fn seeded(seed: u64) -> Garbage {
        Garbage(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end
    }

    fn octet(&mut self) -> u8 {
        // Half of them are values that mean something to a parser.
        const TELLING: [u8; 10] = [0, 1, 12, 41, 63, 64, 128, 192, 254, 255];
        match self.below(2) {
            0 => TELLING[self.below(TELLING.len())],
            _ => self.below(256) as u8,
        }
    }

    pub fn octets(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.octet()).collect()
    }

    /// A query, mutilated or not, or noise.
    pub fn query(&mut self) -> Vec<u8> {
        let name = ["hit.good.test", "a.test", "", "x.very.long.name.indeed.test"][self.below(4)];
        let query = ask(name).qtype([1, 28, 255, 41, 252][self.below(5)]);
        let (size, version) = (self.below(65536) as u16, self.below(3) as u8 / 2);
        let length = self.below(40);
        let options = self.octets(length);
        let query = match self.below(3) {
            0 => query,
            1 => query.opt(size, version, true, &options),
            _ => query.edns(size).additional(&options),
        };
        match self.below(5) {
            0 => {
                let length = self.below(600);
                self.octets(length)
            }
            _ => self.mutilated(query.build()),
        }
    }

    /// `message` with a few octets changed, taken away, doubled or added.
    pub fn mutilated(&mut self, mut message: Vec<u8>) -> Vec<u8> {
        for _ in 0..self.below(4) {
            let at = self.below(message.len().max(1));
            match self.below(5) {
                0 => message.truncate(at),
                1 => {
                    let length = self.below(80);
                    message.extend(self.octets(length));
                }
                2 => message.extend_from_within(at.min(message.len())..),
                _ if at < message.len() => message[at] = self.octet(),
                _ => {}
            }
        }
        message
    }

    /// `reply`, a well-formed one whose records begin at `head`, with its rest spoilt.
    pub fn spoilt(&mut self, reply: &[u8], head: usize) -> Vec<u8> {
        let mut spoilt = reply[..head].to_vec();
        spoilt[3] = self.octet();
        for at in (7..12).step_by(2) {
            spoilt[at] = self.below(4) as u8;
        }
        let rest = match self.below(3) {
            0 => reply[head..].to_vec(),
            1 => [&reply[head..], &reply[head..]].concat(),
            _ => {
                let length = self.below(300);
                self.octets(length)
            }
        };
        spoilt.extend(self.mutilated(rest));
        spoilt
    }
}
