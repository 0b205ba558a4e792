//! Changes to a table, one at a time.

use std::sync::PoisonError;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::fence;

use super::{BLOCK, BLOCKS_PER_ENTRY, END, Found, READS, Table, field};
use crate::cache::eviction::{Eviction, Slot};
use crate::cache::policy::Store;
use crate::clock::Moment;
use crate::wire::{Key, Outline};

/// What only writers know.
pub(super) struct Writer {
    eviction: Eviction,
    /// Slots that were given back.
    free_slots: Vec<Slot>,
    /// Slots never used begin here.
    fresh_slot: Slot,
    /// First of the blocks that were given back, linked like an answer's.
    free_block: u32,
    /// The block used last of those never used before.
    fresh_block: u32,
    /// Blocks that each store may still take.
    pub(super) blocks_left: [usize; 2],
}

/// An entry to be stored.
pub(in crate::cache) struct Draft<'a> {
    /// Where it counts.
    pub store: Store,
    /// Its key.
    pub key: &'a Key,
    /// The answer's outline.
    pub outline: Outline,
    /// [`Outline::octets`] octets.
    pub octets: &'a [u8],
    /// Seconds it is good for.
    pub ttl: u32,
    /// When it came.
    pub now: Moment,
    /// [`Found::popularity`] of what it replaces; 0 without.
    pub popularity: u64,
}

impl Writer {
    pub fn new(capacities: [usize; 2]) -> Writer {
        Writer {
            eviction: Eviction::new(capacities),
            free_slots: Vec::new(),
            fresh_slot: 0,
            free_block: END,
            fresh_block: END,
            blocks_left: capacities.map(|capacity| capacity * BLOCKS_PER_ENTRY),
        }
    }

    fn take_slot(&mut self) -> Slot {
        self.free_slots.pop().unwrap_or_else(|| {
            self.fresh_slot += 1;
            self.fresh_slot - 1
        })
    }
}

impl Table {
    /// Stores `draft` in place of what there is for its key, and says how many other entries had to go;
    /// `None`: it is too large for its store.
    pub fn insert(&self, draft: &Draft<'_>) -> Option<u64> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let store = draft.store;
        let blocks = draft.key.lines().len() + draft.octets.len().div_ceil(BLOCK);
        if blocks > self.capacities[store as usize] * BLOCKS_PER_ENTRY {
            return None;
        }
        let mut old = self.find(draft.key);
        if let Some(other) = old.take_if(|old| writer.eviction.store_of(old.slot) != store) {
            self.drop_slot(&mut writer, other.slot);
        }
        let mut evicted = 0;
        while writer.blocks_left[store as usize] < blocks || old.is_none() && writer.eviction.is_full(store) {
            let victim = self.evict(&mut writer, store)?;
            match old {
                Some(found) if found.slot == victim => old = None,
                _ => evicted += 1,
            }
        }
        writer.blocks_left[store as usize] -= blocks;
        // Pairs with the fence in `copy`: who sees what is written from here on into a block that was given back,
        // maybe by another thread, also sees the new sequence of the slot whose block it was.
        fence(Release);
        let answer = self.write_blocks(&mut writer, draft.octets, END);
        let first_block = self.write_blocks(&mut writer, draft.key.lines().as_flattened(), answer);
        if let Some(old) = old {
            self.rewrite(old.slot, first_block, Some(draft));
            self.free_blocks(&mut writer, store, &old);
        } else {
            let slot = writer.take_slot();
            self.rewrite(slot, first_block, Some(draft));
            self.link(slot, draft.key.hash());
            writer.eviction.admit(slot, store, draft.key.hash());
        }
        self.note_lengths(&writer);
        Some(evicted)
    }

    /// Takes out the entry for `key`.
    #[cfg(test)]
    pub fn remove(&self, key: &Key) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = self.find(key) {
            self.drop_slot(&mut writer, found.slot);
            self.note_lengths(&writer);
        }
    }

    fn note_lengths(&self, writer: &Writer) {
        for store in [Store::Success, Store::Denial] {
            self.lengths[store as usize].store(writer.eviction.len(store), Relaxed);
        }
    }

    fn drop_slot(&self, writer: &mut Writer, slot: Slot) {
        let store = writer.eviction.store_of(slot);
        writer.eviction.remove(slot);
        self.discard(writer, store, slot);
    }

    fn evict(&self, writer: &mut Writer, store: Store) -> Option<Slot> {
        let word = |slot, at: usize| self.slot(slot).map(|words| &words[at]);
        let popularity = |slot| word(slot, field::POPULARITY).map_or(0, |word| word.load(Relaxed));
        let victim = writer.eviction.evict(
            store,
            |slot| popularity(slot) & READS,
            |slot, reads| {
                if let Some(word) = word(slot, field::POPULARITY) {
                    word.store(popularity(slot) & !READS | reads, Relaxed);
                }
            },
            |slot| word(slot, field::HASH).map_or(0, |word| word.load(Relaxed)),
        )?;
        self.discard(writer, store, victim);
        Some(victim)
    }

    /// Empties a slot that is no longer in the order of eviction.
    fn discard(&self, writer: &mut Writer, store: Store, slot: Slot) {
        let Some(words) = self.slot(slot) else { return };
        let found = Found::new(slot, 0, words);
        self.unlink(slot, words[field::HASH].load(Relaxed));
        self.rewrite(slot, END, None);
        self.free_blocks(writer, store, &found);
        writer.free_slots.push(slot);
    }

    /// Overwrites a slot, with nothing if there is no draft.
    fn rewrite(&self, slot: Slot, first_block: u32, draft: Option<&Draft<'_>>) {
        let Some(words) = self.slot(slot) else { return };
        let writing = words[field::SEQUENCE].load(Relaxed) | 1;
        words[field::SEQUENCE].store(writing, Relaxed);
        // Pairs with the fence in `copy`: who sees anything written from here on, to this slot or to a
        // block that it gives up, sees the sequence above, too.
        fence(Release);
        let (hash, outline, ttl, now, popularity) = draft.map_or((0, 0, 0, 0, 0), |draft| {
            (draft.key.hash(), draft.outline.to_bits(), draft.ttl, draft.now.0, draft.popularity)
        });
        words[field::HASH].store(hash, Relaxed);
        words[field::BLOCKS_TTL].store(u64::from(first_block) | u64::from(ttl) << 32, Relaxed);
        words[field::OUTLINE].store(outline, Relaxed);
        words[field::STORED].store(now, Relaxed);
        words[field::NEXT_REFRESH].store(0, Relaxed);
        words[field::POPULARITY].store(popularity, Relaxed);
        words[field::SEQUENCE].store(writing + 1, Release);
    }

    fn link(&self, slot: Slot, hash: u64) {
        let Some(words) = self.slot(slot) else { return };
        let bucket = self.bucket(hash);
        words[field::NEXT].store(u64::from(bucket.load(Relaxed)), Relaxed);
        bucket.store(slot + 1, Release);
    }

    fn unlink(&self, slot: Slot, hash: u64) {
        let next = self.slot(slot).map_or(END, |words| words[field::NEXT].load(Relaxed) as u32);
        let bucket = self.bucket(hash);
        let mut link = bucket.load(Relaxed);
        if link == slot + 1 {
            bucket.store(next, Release);
            return;
        }
        while let Some(words) = link.checked_sub(1).and_then(|at| self.slot(at)) {
            link = words[field::NEXT].load(Relaxed) as u32;
            if link == slot + 1 {
                words[field::NEXT].store(u64::from(next), Release);
                return;
            }
        }
    }

    /// Writes `octets` to as many blocks as they need, in front of those that begin with `next`, and returns
    /// the first.
    fn write_blocks(&self, writer: &mut Writer, octets: &[u8], next: u32) -> u32 {
        let mut first = next;
        // From the end, so that each block knows the one after it.
        for octets in octets.chunks(BLOCK).rev() {
            let link = self.take_block(writer);
            let Some(words) = self.block(link) else { break };
            let (whole, rest) = octets.as_chunks::<8>();
            for (word, octets) in words.iter().zip(whole) {
                word.store(u64::from_ne_bytes(*octets), Relaxed);
            }
            if let Some(word) = words.get(whole.len()).filter(|_| !rest.is_empty()) {
                let mut padded = [0; 8];
                padded[..rest.len()].copy_from_slice(rest);
                word.store(u64::from_ne_bytes(padded), Relaxed);
            }
            self.block_link(link).store(first, Relaxed);
            first = link;
        }
        first
    }

    fn take_block(&self, writer: &mut Writer) -> u32 {
        if writer.free_block == END {
            writer.fresh_block += 1;
            return writer.fresh_block;
        }
        let link = writer.free_block;
        writer.free_block = self.block_link(link).load(Relaxed);
        link
    }

    fn free_blocks(&self, writer: &mut Writer, store: Store, found: &Found<'_>) {
        let mut link = found.first_block;
        while link != END {
            let next = self.block_link(link).load(Relaxed);
            self.block_link(link).store(writer.free_block, Relaxed);
            writer.free_block = link;
            writer.blocks_left[store as usize] += 1;
            link = next;
        }
    }
}
