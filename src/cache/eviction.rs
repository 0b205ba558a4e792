//! Who has to go: S3-FIFO (Yang et al., SOSP 2023).
//!
//! ```text
//! new ─► probation (a tenth) ─┬─ read twice ─► resident ─┬─ read since ─► back to its tail
//!                             └─ else: out, remembered    └─ else: out
//! remembered and asked again ─► resident
//! ```
//!
//! A flood of names that are asked once runs through probation and never reaches the residents.
//!
//! Each [`Store`] has an order of its own, so that neither takes the other's place.

use super::policy::Store;

/// A slot's number.
pub(super) type Slot = u32;

const NONE: Slot = Slot::MAX;
/// Probation's share of the slots.
const PROBATION_SHARE: usize = 10;
/// Reads in probation that make a resident.
const PROMOTION: u64 = 2;
/// Reads count to here.
pub(super) const MOST_READS: u64 = 3;

/// The order of eviction.
pub(super) struct Eviction {
    /// Neighbours of each slot that was ever in use.
    links: Vec<Link>,
    /// By store.
    orders: [Order; 2],
    /// Hashes that left probation, each in the place that its value gives it until another takes it.
    remembered: Box<[u32]>,
}

struct Order {
    probation: Queue,
    residents: Queue,
    /// Slots at most.
    capacity: usize,
}

#[derive(Clone, Copy)]
struct Link {
    newer: Slot,
    older: Slot,
    store: Store,
    resident: bool,
}

struct Queue {
    newest: Slot,
    oldest: Slot,
    len: usize,
}

impl Eviction {
    /// Orders for as many slots, by store.
    pub fn new(capacities: [usize; 2]) -> Eviction {
        let empty = || Queue { newest: NONE, oldest: NONE, len: 0 };
        Eviction {
            links: Vec::new(),
            orders: capacities.map(|capacity| Order { probation: empty(), residents: empty(), capacity }),
            remembered: vec![0; capacities.iter().sum::<usize>().max(1)].into_boxed_slice(),
        }
    }

    /// Slots of `store` in use.
    pub fn len(&self, store: Store) -> usize {
        let order = &self.orders[store as usize];
        order.probation.len + order.residents.len
    }

    /// Whether `store` has all the slots it may have.
    pub fn is_full(&self, store: Store) -> bool {
        self.len(store) >= self.orders[store as usize].capacity
    }

    /// The store that `slot`, which is in use, belongs to.
    pub fn store_of(&self, slot: Slot) -> Store {
        self.links[slot as usize].store
    }

    /// Takes in `slot`, which holds an entry of `store` with `hash` from now on.
    pub fn admit(&mut self, slot: Slot, store: Store, hash: u64) {
        let (place, print) = self.trace(hash);
        let resident = self.remembered[place] == print;
        if resident {
            self.remembered[place] = 0;
        }
        self.push(slot, store, resident);
    }

    /// Forgets `slot`.
    pub fn remove(&mut self, slot: Slot) {
        let Link { newer, older, store, resident } = self.links[slot as usize];
        let queue = self.orders[store as usize].queue(resident);
        queue.len -= 1;
        if newer == NONE {
            queue.newest = older
        } else {
            self.links[newer as usize].older = older
        }
        if older == NONE { queue.oldest = newer } else { self.links[older as usize].newer = newer }
    }

    /// Chooses the next victim of `store` and forgets it. `reads` and `set_reads` access a slot's count of reads,
    /// `hash` its entry's. `None`: nothing is in use.
    pub fn evict(
        &mut self,
        store: Store,
        reads: impl Fn(Slot) -> u64,
        set_reads: impl Fn(Slot, u64),
        hash: impl Fn(Slot) -> u64,
    ) -> Option<Slot> {
        loop {
            let Order { probation, residents, capacity } = &self.orders[store as usize];
            let target = (capacity / PROBATION_SHARE).max(1);
            let from_probation = probation.len >= target || residents.len == 0;
            let slot = if from_probation { probation.oldest } else { residents.oldest };
            if slot == NONE {
                return None;
            }
            self.remove(slot);
            let count = reads(slot);
            if from_probation && count >= PROMOTION {
                set_reads(slot, 0);
                self.push(slot, store, true);
            } else if !from_probation && count > 0 {
                set_reads(slot, count - 1);
                self.push(slot, store, true);
            } else {
                if from_probation {
                    let (place, print) = self.trace(hash(slot));
                    self.remembered[place] = print;
                }
                return Some(slot);
            }
        }
    }

    fn push(&mut self, slot: Slot, store: Store, resident: bool) {
        let queue = self.orders[store as usize].queue(resident);
        let link = Link { newer: NONE, older: queue.newest, store, resident };
        if queue.newest == NONE {
            queue.oldest = slot
        } else {
            self.links[queue.newest as usize].newer = slot
        }
        queue.newest = slot;
        queue.len += 1;
        let index = slot as usize;
        if index >= self.links.len() {
            self.links.resize(index + 1, Link { newer: NONE, older: NONE, store, resident: false });
        }
        self.links[index] = link;
    }

    /// Where `hash` is remembered, and as what; 0 is an empty place.
    fn trace(&self, hash: u64) -> (usize, u32) {
        ((hash as u32) as usize % self.remembered.len(), (hash >> 32) as u32 | 1)
    }
}

impl Order {
    fn queue(&mut self, resident: bool) -> &mut Queue {
        if resident { &mut self.residents } else { &mut self.probation }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::HashMap;

    use super::*;

    /// A cache of numbers, each its own hash.
    struct Numbers {
        order: Eviction,
        slots: RefCell<Vec<(u64, u64)>>,
        places: HashMap<u64, Slot>,
        free: Vec<Slot>,
    }

    impl Numbers {
        fn new(capacity: usize) -> Numbers {
            Numbers {
                order: Eviction::new([capacity, capacity]),
                slots: RefCell::new(vec![(0, 0); capacity]),
                places: HashMap::new(),
                free: (0..capacity as Slot).collect(),
            }
        }

        fn ask_all(&mut self, numbers: std::ops::Range<u64>) {
            for number in numbers {
                self.ask(number);
            }
        }

        /// Whether `number` was there; it is afterwards.
        fn ask(&mut self, number: u64) -> bool {
            let hash = foldhash_of(number);
            if let Some(slot) = self.places.get(&hash) {
                let reads = &mut self.slots.borrow_mut()[*slot as usize].1;
                *reads = (*reads + 1).min(MOST_READS);
                return true;
            }
            let slot = self.free.pop().unwrap_or_else(|| {
                let slots = &self.slots;
                let reads = |slot: Slot| slots.borrow()[slot as usize].1;
                let set = |slot: Slot, to| slots.borrow_mut()[slot as usize].1 = to;
                let hash = |slot: Slot| slots.borrow()[slot as usize].0;
                let victim = self.order.evict(Store::Success, reads, set, hash).unwrap();
                let gone = self.slots.borrow()[victim as usize].0;
                self.places.remove(&gone);
                victim
            });
            self.slots.borrow_mut()[slot as usize] = (hash, 0);
            self.places.insert(hash, slot);
            self.order.admit(slot, Store::Success, hash);
            false
        }
    }

    fn foldhash_of(number: u64) -> u64 {
        use std::hash::BuildHasher;
        foldhash::fast::FixedState::with_seed(7).hash_one(number)
    }

    #[test]
    fn a_flood_leaves_the_working_set_in_place() {
        let mut numbers = Numbers::new(1000);
        (0..3).for_each(|_| numbers.ask_all(0..500));
        numbers.ask_all(1_000_000..1_002_000);
        let kept = (0..500).filter(|n| numbers.ask(*n)).count();
        assert!(kept >= 495, "{kept} of 500 were left");
    }

    #[test]
    fn without_reads_the_oldest_goes_first() {
        let mut numbers = Numbers::new(10);
        numbers.ask_all(0..11);
        assert!(!numbers.places.contains_key(&foldhash_of(0)));
        assert!(numbers.places.contains_key(&foldhash_of(1)));
        assert_eq!(numbers.order.len(Store::Success), 10);
    }

    #[test]
    fn what_comes_back_soon_becomes_a_resident() {
        let mut numbers = Numbers::new(100);
        numbers.ask_all(0..101);
        assert!(!numbers.ask(0), "it was evicted");
        numbers.ask_all(1000..1200);
        assert!(numbers.ask(0), "the flood passed it by");
    }

    #[test]
    fn residents_that_are_read_outlive_those_that_are_not() {
        let mut numbers = Numbers::new(10);
        (0..3).for_each(|_| numbers.ask_all(0..6));
        numbers.ask_all(50..55);
        for n in 100..150 {
            (0..3).for_each(|_| numbers.ask_all(n..n + 1));
            assert!(numbers.ask(0), "gone when {n} came");
        }
        assert!(!numbers.ask(1));
    }

    #[test]
    fn a_removed_slot_leaves_no_hole() {
        let mut numbers = Numbers::new(4);
        numbers.ask_all(0..4);
        for n in [1, 0, 3] {
            let slot = numbers.places.remove(&foldhash_of(n)).unwrap();
            numbers.order.remove(slot);
            numbers.free.push(slot);
        }
        assert_eq!(numbers.order.len(Store::Success), 1);
        numbers.ask_all(10..13);
        assert!(numbers.ask(2));
        assert_eq!(numbers.order.len(Store::Success), 4);
    }
}
