//! What makes two questions the same question.

use std::hash::{BuildHasher, Hasher};
use std::rc::Rc;
use std::sync::LazyLock;

use super::header::Flags;
use super::name::MAX_NAME;
use super::query::Query;

/// Octets after the name: type and class.
const FIXED: usize = 4;
/// Octets folded at a time.
const VECTOR: usize = 16;
/// Octets of a key's buffer: the longest question, and a line of flags and zeros behind it.
const ROOM: usize = (MAX_NAME + FIXED + Key::LINE).next_multiple_of(Key::LINE);

/// One seed for the process, so that a key's hash is good in every table, and unknown to clients.
static HASHER: LazyLock<foldhash::fast::RandomState> = LazyLock::new(foldhash::fast::RandomState::default);

/// A question in canonical form: the name in lower case, type, class; and DO, CD and RD.
///
/// CoreDNS 1.13.2 keys on DO, CD, type and name. Class and RD are added: an answer to another
/// class, or to a query without recursion, is not an answer to this one.
///
/// It is a buffer to be written over, so that looking up allocates nothing.
#[derive(Clone)]
#[repr(align(64))]
pub struct Key {
    /// The question, an octet of flags, and zeros to the end of the line at least.
    octets: [u8; ROOM],
    /// Of the name in front.
    name: usize,
    hash: u64,
    hasher: foldhash::fast::RandomState,
}

/// A [`Key`] to be kept: 24 octets and the question's own, which copies share.
#[derive(Debug, Clone)]
pub struct StoredKey {
    hash: u64,
    octets: Rc<[u8]>,
}

impl Default for Key {
    fn default() -> Key {
        Key { octets: [0; ROOM], name: 0, hash: 0, hasher: HASHER.clone() }
    }
}

impl Key {
    /// Octets of which a key fills a whole number: a cache line.
    pub const LINE: usize = 64;

    const DNSSEC_OK: u8 = 1;
    const CHECKING_DISABLED: u8 = 2;
    const RECURSION_DESIRED: u8 = 4;

    /// The key of `query`.
    pub fn of(query: &Query<'_>) -> Key {
        let mut key = Key::default();
        key.set(query);
        key
    }

    /// Overwrites this key with that of `query`.
    #[inline(always)]
    pub fn set(&mut self, query: &Query<'_>) {
        let question = query.question();
        self.fold(question);
        // Type and class are numbers and have no case.
        if let Some((name, fixed)) = question.split_last_chunk::<FIXED>() {
            self.octets[name.len()..question.len()].copy_from_slice(fixed);
            self.name = name.len();
        }
        if let Some(line) = self.octets.get_mut(question.len()..).and_then(|behind| behind.first_chunk_mut())
        {
            *line = [0; Key::LINE];
            line[0] = Key::flags_of(query);
        }
        self.seal(question.len());
    }

    /// The key whose [`Key::lines`] are at the front of `octets`; `None`: there are no such lines.
    pub fn restore(octets: &[u8]) -> Option<Key> {
        let mut name = 0;
        while let length @ 1.. = usize::from(*octets.get(name)?) {
            name += 1 + length;
        }
        let question = name + 1 + FIXED;
        if question > MAX_NAME + FIXED {
            return None;
        }
        let mut key = Key { name: name + 1, ..Key::default() };
        key.octets[..=question].copy_from_slice(octets.get(..=question)?);
        key.seal(question);
        Some(key)
    }

    /// Hashes the lines, of which the first `question` octets are the question.
    #[inline(always)]
    fn seal(&mut self, question: usize) {
        let mut hasher = self.hasher.build_hasher();
        for vector in self.octets.as_chunks::<VECTOR>().0.get(..question / VECTOR + 1).unwrap_or(&[]) {
            hasher.write_u128(u128::from_ne_bytes(*vector));
        }
        self.hash = hasher.finish();
    }

    /// DO, CD and RD as bits.
    #[inline(always)]
    fn flags_of(query: &Query<'_>) -> u8 {
        let flags = query.flags();
        (u8::from(query.dnssec_ok()) * Key::DNSSEC_OK)
            | (u8::from(flags.has(Flags::CD)) * Key::CHECKING_DISABLED)
            | (u8::from(flags.has(Flags::RD)) * Key::RECURSION_DESIRED)
    }

    /// Copies `question` in lower case, by the vector. Length octets are at most 63 and 'A' is 65: folding
    /// leaves them alone. What does not fill a vector is in one that overlaps the vector before; what is
    /// shorter than one is filled up with zeros.
    #[inline(always)]
    fn fold(&mut self, question: &[u8]) {
        let fold = |vector: &[u8; VECTOR]| vector.map(|octet| octet.to_ascii_lowercase());
        let Some(last) = question.last_chunk() else {
            self.octets[..VECTOR].fill(0);
            self.octets[..question.len()].copy_from_slice(question);
            self.octets[..question.len()].make_ascii_lowercase();
            return;
        };
        for (to, from) in self.octets.as_chunks_mut().0.iter_mut().zip(question.as_chunks().0) {
            *to = fold(from);
        }
        self.octets[question.len() - VECTOR..question.len()].copy_from_slice(&fold(last));
    }

    /// The name, lower case, uncompressed wire octets.
    #[inline(always)]
    pub fn name(&self) -> &[u8] {
        &self.octets[..self.name]
    }

    /// The question section: name, type and class.
    #[inline(always)]
    pub fn question(&self) -> &[u8] {
        &self.octets[..self.name + FIXED]
    }

    /// All that two keys are compared by: the question, DO, CD and RD, and zeros to the end of the last line.
    #[inline(always)]
    pub fn lines(&self) -> &[[u8; Key::LINE]] {
        &self.octets.as_chunks().0[..(self.name + FIXED) / Key::LINE + 1]
    }

    /// A hash of all of it, seeded anew in every process.
    #[inline(always)]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// A copy to keep.
    pub fn to_stored(&self) -> StoredKey {
        StoredKey { hash: self.hash, octets: self.octets[..=self.name + FIXED].into() }
    }
}

impl StoredKey {
    /// The name, lower case, uncompressed wire octets.
    pub fn name(&self) -> &[u8] {
        &self.octets[..self.octets.len() - FIXED - 1]
    }
}

impl PartialEq for StoredKey {
    fn eq(&self, other: &StoredKey) -> bool {
        // Most are compared with copies of themselves.
        Rc::ptr_eq(&self.octets, &other.octets) || (self.hash == other.hash && self.octets == other.octets)
    }
}

impl Eq for StoredKey {}

impl std::hash::Hash for StoredKey {
    #[inline]
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}
