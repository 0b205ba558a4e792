//! The table of another process, to be read through once.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::fence;

use super::{BLOCK, Found, Slot, Table, WORDS, field};
use crate::cache::region::Region;
use crate::wire::Key;

/// To be raised with every change to what stands in a region: fields and blocks, the lines of keys,
/// outlines, and the octets of answers.
const LAYOUT: u32 = 1;
/// Blocks of the longest key.
const LONGEST_KEY: usize = 5;

/// A table that this process does not write to. Its owner may go on doing so.
pub struct Heritage(Table);

/// One entry of it, copied out.
pub struct Entry<'t> {
    /// Its key, hashed as in this process.
    pub key: Key,
    /// The answer's octets.
    pub octets: Vec<u8>,
    /// All else.
    pub found: Found<'t>,
}

impl Table {
    /// The table's memory and its shape, from which [`Heritage::open`] makes sense of it.
    pub fn share(&self) -> io::Result<(String, OwnedFd)> {
        let [success, denial] = self.capacities;
        Ok((format!("{LAYOUT}/{success}/{denial}"), self.region.file().try_clone()?))
    }

    /// The entry in `slot`, unless it is being written.
    fn entry(&self, slot: Slot) -> Option<Entry<'_>> {
        let words = self.slot(slot)?;
        let found = Found::new(slot, words[field::SEQUENCE].load(Acquire), words);
        let key = Key::restore(&self.blocks(found.first_block, LONGEST_KEY)?)?;
        let in_front = key.lines().len();
        let octets = found.outline.octets();
        let mut octets_and_more = self.blocks(found.first_block, in_front + octets.div_ceil(BLOCK))?;
        // Pairs with the fence in `rewrite`, as in `copy`.
        fence(Acquire);
        let whole = found.sequence.is_multiple_of(2)
            && words[field::SEQUENCE].load(Relaxed) == found.sequence
            && octets_and_more.len() >= in_front * BLOCK + octets;
        octets_and_more.drain(..in_front * BLOCK);
        octets_and_more.truncate(octets);
        whole.then_some(Entry { key, octets: octets_and_more, found })
    }

    /// At most so many blocks from `first` on.
    fn blocks(&self, first: u32, most: usize) -> Option<Vec<u8>> {
        let mut octets = Vec::with_capacity(most * BLOCK);
        let mut link = first;
        while link != super::END && octets.len() < most * BLOCK {
            let words: &[_; WORDS] = self.block(link)?;
            octets.extend(words.iter().flat_map(|word| word.load(Relaxed).to_ne_bytes()));
            link = self.region.halves().get(self.bucket_mask + link as usize)?.load(Relaxed);
        }
        Some(octets)
    }
}

impl Heritage {
    /// The table in `file`, if it is of the `shape` and of a layout that this version knows.
    pub fn open(shape: &str, file: OwnedFd) -> Option<Heritage> {
        let numbers: Vec<usize> =
            shape.split('/').map(|number| number.parse().ok()).collect::<Option<_>>()?;
        let [layout, success, denial] = numbers[..] else { return None };
        if layout != LAYOUT as usize {
            return None;
        }
        let region = |words, halves| Region::open(file, words, halves);
        Table::over([success, denial], region).ok().map(Heritage)
    }

    /// All entries that are whole.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        // Slots are taken from the first on, so behind one that was never used there are no others.
        let used =
            |slot: &Slot| self.0.slot(*slot).is_some_and(|words| words[field::SEQUENCE].load(Relaxed) > 0);
        (0..self.0.slots as Slot).take_while(used).filter_map(|slot| self.0.entry(slot))
    }
}
