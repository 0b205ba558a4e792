//! Entries by key, bounded in number and in octets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use quick_cache::{Equivalent, Lifecycle, OptionsBuilder, Weighter, sync};

use super::entry::Entry;
use crate::wire::{BuildKeyHasher, Key, StoredKey};

/// Octets that one entry of the configured capacity pays for. A larger entry takes the place of
/// several, so that `capacity` bounds the number and `capacity` KiB the memory.
const OCTETS_PER_ENTRY: u64 = 1024;
/// What an entry costs beside its answer and key: two allocations, the table's slot and its share of
/// the ghost queue (measured by quick_cache's users at about 100 octets).
const OVERHEAD: u64 = 160;
/// Few shards, for each has a fixed part of the capacity.
const SHARDS: usize = 4;

/// A scan-resistant cache (Clock-PRO with S3-FIFO's ghosts): a flood of names asked once leaves the
/// working set in place.
pub(super) struct EntryStore {
    entries: sync::Cache<StoredKey, Arc<Entry>, EntryWeight, BuildKeyHasher, Evictions>,
    evictions: Evictions,
}

impl EntryStore {
    pub fn new(capacity: usize) -> EntryStore {
        let evictions = Evictions::default();
        let mut options = OptionsBuilder::new();
        options
            .shards(SHARDS)
            .estimated_items_capacity(capacity)
            .weight_capacity(capacity as u64 * OCTETS_PER_ENTRY);
        let entries = match options.build() {
            Ok(options) => {
                sync::Cache::with_options(options, EntryWeight, BuildKeyHasher::default(), evictions.clone())
            }
            // The builder only misses what is set two lines above.
            Err(error) => unreachable!("{error}"),
        };
        EntryStore { entries, evictions }
    }

    #[inline]
    pub fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.entries.get(key)
    }

    pub fn insert(&self, key: &Key, entry: Arc<Entry>) {
        self.entries.insert(key.to_stored(), entry);
    }

    pub fn remove(&self, key: &Key) {
        self.entries.remove(key);
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn evictions(&self) -> u64 {
        self.evictions.0.load(Relaxed)
    }
}

impl Equivalent<StoredKey> for Key {
    #[inline]
    fn equivalent(&self, stored: &StoredKey) -> bool {
        self.is(stored)
    }
}

#[derive(Clone)]
struct EntryWeight;

impl Weighter<StoredKey, Arc<Entry>> for EntryWeight {
    fn weight(&self, key: &StoredKey, entry: &Arc<Entry>) -> u64 {
        let octets = key.heap_size() + entry.answer().heap_size();
        OCTETS_PER_ENTRY.max(octets as u64 + OVERHEAD)
    }
}

/// Counts what had to go.
#[derive(Clone, Default)]
struct Evictions(Arc<AtomicU64>);

impl Lifecycle<StoredKey, Arc<Entry>> for Evictions {
    type RequestState = ();

    fn on_evict(&self, _: &mut (), _: StoredKey, _: Arc<Entry>) {
        self.0.fetch_add(1, Relaxed);
    }
}
