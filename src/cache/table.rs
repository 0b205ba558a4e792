//! Entries by key, in memory of fixed size that readers never lock.
//!
//! ```text
//! bucket ─► slot ─► slot …        slots of one hash bucket, chained
//!            │
//!            └─► block ─► block … a key's octets, then an answer's, 64 at a time
//! ```
//!
//! One writer at a time changes the table. Readers copy an entry out and then look whether its slot's
//! sequence number is still what it was before: a seqlock. If not, they found nothing. That costs a
//! reader no atomic read-modify-write and no write that another thread waits for, and it cannot be
//! stalled by a writer that was preempted.
//!
//! Whether two keys are the same is decided by their octets; that two of them share a 64-bit hash
//! is so rare that the table keeps the newer one only.
//!
//! All is numbers, none is a pointer: whatever a torn read yields, the worst is an answer thrown away.

mod heritage;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::sync::Mutex;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, fence};

use super::eviction::{MOST_READS, Slot};
use super::policy::Store;
use super::region::Region;
pub(super) use heritage::{Entry, Heritage};
pub(super) use writer::Draft;
use writer::Writer;

use crate::clock::Moment;
use crate::wire::{Answer, Key, Outline};

/// Octets of a block: a cache line, as that of a key.
const BLOCK: usize = Key::LINE;
/// 64-bit integers of a block, and of a slot.
const WORDS: usize = BLOCK / size_of::<u64>();
/// Octets that one entry of the configured capacity pays for: `capacity` bounds the number, `capacity`
/// times this the memory.
const OCTETS_PER_ENTRY: usize = 512;
const BLOCKS_PER_ENTRY: usize = OCTETS_PER_ENTRY / BLOCK;
/// Slots a reader looks at before it gives up: a chain that changes under it may lead anywhere.
const LONGEST_WALK: usize = 64;
/// Ends a chain. Links are numbers plus one, so that zeroed memory is an empty table.
const END: u32 = 0;

/// A slot's integers.
mod field {
    /// Even: at rest; odd: being written; another value than before: another entry.
    pub const SEQUENCE: usize = 0;
    pub const HASH: usize = 1;
    /// Next slot of the bucket.
    pub const NEXT: usize = 2;
    /// First block; in the upper half the TTL when it was stored, seconds.
    pub const BLOCKS_TTL: usize = 3;
    pub const OUTLINE: usize = 4;
    /// When it was stored, milliseconds.
    pub const STORED: usize = 5;
    /// Nobody starts a refresh before, milliseconds. Readers write it.
    pub const NEXT_REFRESH: usize = 6;
    /// Reads for the eviction in the lowest octet, hits in a row for `prefetch` in the next three, and
    /// when the last of these was in the upper half, milliseconds modulo 2^32. Readers write it.
    pub const POPULARITY: usize = 7;
}

const READS: u64 = 0xff;
const HITS_SHIFT: u32 = 8;
const MOST_HITS: u64 = 0xff_ffff;

/// Entries in a region.
pub(super) struct Table {
    region: Region,
    /// Entries at most, by store.
    capacities: [usize; 2],
    slots: usize,
    /// Less one; a power of two.
    bucket_mask: usize,
    writer: Mutex<Writer>,
    /// Entries, by store.
    lengths: [AtomicUsize; 2],
}

/// An entry as it was when a reader found it. Nothing in it is to be believed before
/// [`Table::copy`] said so.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found<'t> {
    words: &'t [AtomicU64; WORDS],
    slot: Slot,
    sequence: u64,
    first_block: u32,
    /// Of the answer.
    pub outline: Outline,
    /// TTL when it was stored, seconds.
    pub ttl: u32,
    stored: Moment,
}

impl Table {
    /// Room for as many entries, by store.
    pub fn new(capacities: [usize; 2]) -> io::Result<Table> {
        Table::over(capacities, Region::new)
    }

    /// A table in what `region` makes, given the numbers of its words and halves.
    fn over(
        capacities: [usize; 2],
        region: impl FnOnce(usize, usize) -> io::Result<Region>,
    ) -> io::Result<Table> {
        // Links are 32 bits wide.
        let capacities = capacities.map(|capacity| capacity.clamp(1, u32::MAX as usize / OCTETS_PER_ENTRY));
        let slots: usize = capacities.iter().sum();
        let blocks = slots * BLOCKS_PER_ENTRY;
        let buckets = slots.next_power_of_two();
        let region = region((slots + blocks) * WORDS, buckets + blocks)?;
        let writer = Mutex::new(Writer::new(capacities));
        let lengths = Default::default();
        Ok(Table { region, capacities, slots, bucket_mask: buckets - 1, writer, lengths })
    }

    /// Entries of `store`.
    pub fn len(&self, store: Store) -> usize {
        self.lengths[store as usize].load(Relaxed)
    }

    /// The entry for `key`, to be copied.
    #[inline(always)]
    pub fn find(&self, key: &Key) -> Option<Found<'_>> {
        let hash = key.hash();
        let mut link = self.bucket(hash).load(Acquire);
        for _ in 0..LONGEST_WALK {
            let slot = link.checked_sub(1)?;
            let words = self.slot(slot)?;
            let sequence = words[field::SEQUENCE].load(Acquire);
            if words[field::HASH].load(Relaxed) == hash {
                return Some(Found::new(slot, sequence, words));
            }
            link = words[field::NEXT].load(Relaxed) as u32;
        }
        None
    }

    /// Copies the octets of `found` to their [`place`](Answer::place) in `out` and says whether they are the
    /// answer to `key`.
    #[inline(always)]
    pub fn copy(&self, found: &Found<'_>, key: &Key, out: &mut [u8]) -> bool {
        let whole = found.sequence.is_multiple_of(2) && self.read(found, key, out).is_some();
        // Pairs with the fence in `rewrite`: who read a block that was overwritten sees the new sequence.
        fence(Acquire);
        whole && found.words[field::SEQUENCE].load(Relaxed) == found.sequence
    }

    /// Compares the blocks of the key in place and copies those of the answer; of the last, what is behind the
    /// answer, too. `None`: this is the entry of another key, or none.
    #[inline(always)]
    fn read(&self, found: &Found<'_>, key: &Key, out: &mut [u8]) -> Option<()> {
        let (units, links) = (self.units(), self.region.halves());
        let mut link = found.first_block;
        let mut next = || {
            let words = units.get(self.block_place(link))?;
            link = links.get(self.bucket_mask + link as usize)?.load(Relaxed);
            Some(words)
        };
        for line in key.lines() {
            let mut pairs = next()?.iter().zip(line.as_chunks().0);
            if !pairs.all(|(word, key)| word.load(Relaxed) == u64::from_ne_bytes(*key)) {
                return None;
            }
        }
        let room = out.get_mut(Answer::place(key.question())..)?.as_chunks_mut::<BLOCK>().0;
        for to in room.get_mut(..found.outline.octets().div_ceil(BLOCK))? {
            for (word, to) in next()?.iter().zip(to.as_chunks_mut().0) {
                *to = word.load(Relaxed).to_ne_bytes();
            }
        }
        Some(())
    }

    /// Slots, and behind them blocks.
    #[inline(always)]
    fn units(&self) -> &[[AtomicU64; WORDS]] {
        self.region.words().as_chunks().0
    }

    /// Where the block `link` stands among the units. What a torn read yields stands nowhere, or anywhere.
    #[inline(always)]
    fn block_place(&self, link: u32) -> usize {
        (self.slots + link as usize).wrapping_sub(1)
    }

    #[inline(always)]
    fn slot(&self, slot: Slot) -> Option<&[AtomicU64; WORDS]> {
        self.units().get(slot as usize)
    }

    #[inline]
    fn block(&self, link: u32) -> Option<&[AtomicU64; WORDS]> {
        self.units().get(self.block_place(link))
    }

    #[inline]
    fn bucket(&self, hash: u64) -> &AtomicU32 {
        &self.region.halves()[hash as usize & self.bucket_mask]
    }

    /// What follows the block `link`, which must be one.
    #[inline]
    fn block_link(&self, link: u32) -> &AtomicU32 {
        &self.region.halves()[self.bucket_mask + link as usize]
    }
}

impl<'t> Found<'t> {
    #[inline(always)]
    fn new(slot: Slot, sequence: u64, words: &'t [AtomicU64; WORDS]) -> Found<'t> {
        let blocks_ttl = words[field::BLOCKS_TTL].load(Relaxed);
        Found {
            words,
            slot,
            sequence,
            first_block: blocks_ttl as u32,
            outline: Outline::from_bits(words[field::OUTLINE].load(Relaxed)),
            ttl: (blocks_ttl >> 32) as u32,
            stored: Moment(words[field::STORED].load(Relaxed)),
        }
    }

    /// Where it counts.
    #[inline]
    pub fn store(&self) -> Store {
        Store::of(self.outline.kind())
    }

    /// Seconds left; 0 and below: expired for that long.
    #[inline]
    pub fn remaining(&self, now: Moment) -> i64 {
        i64::from(self.ttl) - (now.since(self.stored) / 1000) as i64
    }

    /// When it was stored.
    #[inline]
    pub fn stored(&self) -> Moment {
        self.stored
    }

    /// Counts a read. A popular entry's count is full, so that reading it writes nothing.
    #[inline]
    pub fn touch(&self) {
        let popularity = self.popularity();
        if popularity & READS < MOST_READS {
            self.words[field::POPULARITY].store(popularity + 1, Relaxed);
        }
    }

    /// Counts a hit and says how many came without a gap longer than `gap_ms`.
    pub fn hit(&self, now: Moment, gap_ms: u64) -> u64 {
        let popularity = self.popularity();
        let idle = (now.0 as u32).wrapping_sub((popularity >> 32) as u32);
        let before = popularity >> HITS_SHIFT & MOST_HITS;
        let hits = if u64::from(idle) > gap_ms { 1 } else { (before + 1).min(MOST_HITS) };
        let last = u64::from(now.0 as u32) << 32;
        self.words[field::POPULARITY].store(last | hits << HITS_SHIFT | popularity & READS, Relaxed);
        hits
    }

    /// Whether the caller shall refresh the entry now. One caller is told so every `lease_ms`: the
    /// refresh replaces the entry, and if it fails the lease runs out.
    pub fn claim_refresh(&self, now: Moment, lease_ms: u64) -> bool {
        let next = &self.words[field::NEXT_REFRESH];
        let due = next.load(Relaxed);
        now.0 >= due && next.compare_exchange(due, now.0 + lease_ms, Relaxed, Relaxed).is_ok()
    }

    /// Nobody shall ask for the entry anew before `until`.
    pub fn defer(&self, until: Moment) {
        self.words[field::NEXT_REFRESH].store(until.0, Relaxed);
    }

    /// Whether it is too early to ask for the entry anew.
    pub fn is_deferred(&self, now: Moment) -> bool {
        now.0 < self.words[field::NEXT_REFRESH].load(Relaxed)
    }

    /// What the entry that replaces this one inherits.
    #[inline]
    pub fn popularity(&self) -> u64 {
        self.words[field::POPULARITY].load(Relaxed)
    }
}
