//! The order in which a reply has the addresses of one name.

use std::net::IpAddr;

use super::answer::{Outline, ttl_offsets};
use super::header::{HEADER, record_type, u16_at};

/// How the addresses of a reply are to be ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balance<'s> {
    /// What the order is drawn from; each gives another.
    pub seed: u64,
    /// Addresses in the first of these come first, then those in the second, then all others.
    pub prefer: &'s [Subnet],
}

/// An address prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    address: IpAddr,
    prefix_len: u8,
}

impl Subnet {
    /// `None`: such addresses have fewer bits.
    pub fn new(address: IpAddr, prefix_len: u8) -> Option<Subnet> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        (prefix_len <= bits).then_some(Subnet { address, prefix_len })
    }

    /// Whether `address`, the RDATA of an A or AAAA record, is in it.
    fn contains(&self, address: &[u8]) -> bool {
        let same = |own: &[u8]| {
            let (octets, bits) = (usize::from(self.prefix_len / 8), self.prefix_len % 8);
            let same_bits = |(own, other): (&u8, &u8)| (own ^ other) & !(0xff >> bits) == 0;
            own.len() == address.len()
                && own[..octets] == address[..octets]
                && own[octets..].iter().zip(&address[octets..]).take(1).all(same_bits)
        };
        match self.address {
            IpAddr::V4(own) => same(&own.octets()),
            IpAddr::V6(own) => same(&own.octets()),
        }
    }
}

/// Records of one name, type, class and length that stand side by side: their RDATA can change places, for it
/// holds no name that might be compressed, and nothing else moves.
struct Run {
    /// Number of its first record.
    first: usize,
    /// How many there are.
    len: usize,
    /// Where the owner of its first record is.
    owner: (usize, usize),
    /// Octets of an address.
    size: usize,
}

impl Balance<'_> {
    /// Orders the addresses of an answer to `question` that stands at its [place](super::Answer::place) in `out`.
    pub fn apply(self, out: &mut [u8], question: &[u8], outline: Outline) {
        let base = HEADER + question.len();
        let behind = out.get_mut(base..).unwrap_or_default();
        let Some((records, offsets)) = behind.split_at_mut_checked(outline.records()) else { return };
        let Some(offsets) = offsets.get(..outline.offsets()) else { return };
        self.order_all(records, offsets, base);
    }

    /// Orders the addresses in `records`, whose TTL fields are at `offsets` and which stand at `base` in their
    /// message.
    fn order_all(mut self, records: &mut [u8], offsets: &[u8], base: usize) {
        let mut run: Option<Run> = None;
        let mut start = 0;
        for (index, ttl) in ttl_offsets(offsets).enumerate() {
            let (Some(kind), Some(size)) = (u16_at(records, ttl - 4), u16_at(records, ttl + 4)) else {
                return;
            };
            let size = usize::from(size);
            let owner = (start, ttl - 4);
            start = ttl + 6 + size;
            match &mut run {
                Some(run) if run.takes(records, owner, size, base) => run.len += 1,
                _ => {
                    self.order(run.take(), records, offsets);
                    let is_address = matches!((kind, size), (record_type::A, 4) | (record_type::AAAA, 16));
                    run = is_address.then_some(Run { first: index, len: 1, owner, size });
                }
            }
        }
        self.order(run, records, offsets);
    }

    /// Draws an order for `run`, and moves to its front what is preferred.
    fn order(&mut self, run: Option<Run>, records: &mut [u8], offsets: &[u8]) {
        let Some(run) = run.filter(|run| run.len > 1) else { return };
        let offsets = offsets.as_chunks::<2>().0;
        let Some(offsets) = offsets.get(run.first..run.first + run.len) else { return };
        let rdata = |at: usize| usize::from(u16::from_ne_bytes(offsets[at])) + 6;
        let swap = |records: &mut [u8], one: usize, other: usize| {
            let (one, other) = (rdata(one), rdata(other));
            (0..run.size).for_each(|octet| records.swap(one + octet, other + octet));
        };
        for left in (1..run.len).rev() {
            swap(records, left, self.draw(left + 1));
        }
        let mut front = 0;
        for subnet in self.prefer {
            let others = front;
            for at in others..run.len {
                if subnet.contains(&records[rdata(at)..rdata(at) + run.size]) {
                    swap(records, front, at);
                    front += 1;
                }
            }
        }
    }

    /// A number below `bound`, which is small (splitmix64).
    fn draw(&mut self, bound: usize) -> usize {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.seed ^ self.seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((mixed >> 32) * bound as u64) >> 32) as usize
    }
}

impl Run {
    /// Whether the record with this owner and RDATA of `size` octets is one more of it.
    fn takes(&self, records: &[u8], owner: (usize, usize), size: usize, base: usize) -> bool {
        let fixed = |(_, end): (usize, usize)| &records[end..end + 4];
        let name = |(start, end): (usize, usize)| &records[start..end];
        let to_first = u16::try_from(base + self.owner.0).map_or(u16::MAX, |at| 0xc000 | at).to_be_bytes();
        self.size == size
            && fixed(self.owner) == fixed(owner)
            && (name(self.owner) == name(owner) || name(owner) == to_first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records of these owners (wire octets), types and RDATA, and their TTL offsets.
    fn message(records: &[(&[u8], u16, &[u8])]) -> (Vec<u8>, Vec<u8>) {
        let (mut octets, mut offsets) = (Vec::new(), Vec::new());
        for (owner, rtype, rdata) in records {
            octets.extend_from_slice(owner);
            octets.extend([rtype.to_be_bytes(), [0, 1]].concat());
            offsets.extend((octets.len() as u16).to_ne_bytes());
            octets.extend([0, 0, 0, 30, 0, rdata.len() as u8]);
            octets.extend_from_slice(rdata);
        }
        (octets, offsets)
    }

    fn last_octets(octets: &[u8], offsets: &[u8]) -> Vec<u8> {
        ttl_offsets(offsets).map(|ttl| octets[ttl + 5 + usize::from(octets[ttl + 5])]).collect()
    }

    const SELF: &[u8] = &[0xc0, 12];

    #[test]
    fn every_order_is_drawn_about_as_often() {
        let records: Vec<_> = [[10, 0, 0, 1], [10, 0, 0, 2], [10, 0, 0, 3]].to_vec();
        let records: Vec<_> = records.iter().map(|rdata| (SELF, 1, &rdata[..])).collect();
        let mut seen = std::collections::HashMap::new();
        for seed in 0..6000 {
            let (mut octets, offsets) = message(&records);
            Balance { seed, prefer: &[] }.order_all(&mut octets, &offsets, 30);
            *seen.entry(last_octets(&octets, &offsets)).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), 6);
        assert!(seen.values().all(|count| (850..1150).contains(count)), "{seen:?}");
    }

    #[test]
    fn only_addresses_of_one_name_change_places() {
        let other: &[u8] = &[1, b'x', 0xc0, 12];
        // Three records of 16 octets and one of 15 are before.
        let to_other = &[0xc0, 30 + 63];
        let (before, offsets) = message(&[
            (SELF, 5, &[0, 0, 0, 1]),
            (SELF, 1, &[0, 0, 0, 2]),
            (SELF, 1, &[0, 0, 0, 3]),
            (SELF, 1, &[0, 0, 3]),
            (other, 1, &[0, 0, 0, 4]),
            (to_other, 1, &[0, 0, 0, 5]),
            (SELF, 16, &[0, 0, 0, 6]),
            (SELF, 16, &[0, 0, 0, 7]),
        ]);
        let mut first = [Vec::new(), Vec::new()];
        for seed in 0..64 {
            let mut octets = before.clone();
            Balance { seed, prefer: &[] }.order_all(&mut octets, &offsets, 30);
            let order = last_octets(&octets, &offsets);
            assert_eq!((order[0], order[3], &order[6..]), (1, 3, &[6, 7][..]));
            first[0].push(order[1]);
            first[1].push(order[4]);
        }
        for (first, both) in first.iter().zip([[2, 3], [4, 5]]) {
            assert!(both.iter().all(|one| first.contains(one)), "{first:?}");
        }
    }

    #[test]
    fn preferred_subnets_come_first() {
        let subnet = |text: &str, len| Subnet::new(text.parse().unwrap(), len).unwrap();
        let prefer = [subnet("10.0.1.128", 25), subnet("2001:db8::", 33), subnet("10.0.0.0", 16)];
        let addresses = [[192, 0, 2, 1], [10, 0, 1, 2], [10, 0, 1, 129], [10, 1, 0, 4], [10, 0, 1, 3]];
        let records: Vec<_> = addresses.iter().map(|rdata| (SELF, 1, &rdata[..])).collect();
        for seed in 0..100 {
            let (mut octets, offsets) = message(&records);
            Balance { seed, prefer: &prefer }.order_all(&mut octets, &offsets, 30);
            let order = last_octets(&octets, &offsets);
            assert_eq!(order[0], 129);
            assert!(order[1..3] == [2, 3] || order[1..3] == [3, 2], "{order:?}");
        }
        assert_eq!(Subnet::new([10, 0, 0, 0].into(), 33), None);
    }
}
