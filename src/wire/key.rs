//! What makes two questions the same question.

use std::hash::{BuildHasher, Hasher};
use std::sync::LazyLock;

use super::header::Flags;
use super::name::MAX_NAME;
use super::query::Query;

/// Octets after the name: type and class.
const FIXED: usize = 4;
/// Octets folded at a time.
const VECTOR: usize = 16;
/// Octets of a key's buffer.
const ROOM: usize = (MAX_NAME + FIXED).next_multiple_of(VECTOR);

/// One seed for the process, so that a key's hash is good in every table, and unknown to clients.
static HASHER: LazyLock<foldhash::fast::RandomState> = LazyLock::new(foldhash::fast::RandomState::default);

/// A question in canonical form: the name in lower case, type, class; and DO, CD and RD.
///
/// CoreDNS 1.13.2 keys on DO, CD, type and name. Class and RD are added: an answer to another
/// class, or to a query without recursion, is not an answer to this one.
///
/// It is a buffer to be written over, so that looking up allocates nothing.
#[derive(Clone)]
pub struct Key {
    hasher: foldhash::fast::RandomState,
    hash: u64,
    /// DO, CD and RD.
    flags: u8,
    /// Of the question.
    len: usize,
    octets: [u8; ROOM],
}

/// A [`Key`] to be kept: 24 octets and the question's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    hash: u64,
    octets: Box<[u8]>,
}

impl Default for Key {
    fn default() -> Key {
        Key { hasher: HASHER.clone(), hash: 0, flags: 0, len: 0, octets: [0; ROOM] }
    }
}

impl Key {
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
        let flags = query.flags();
        let question = query.question();
        self.fold(question);
        // Type and class are numbers and have no case.
        if let Some((name, fixed)) = question.split_last_chunk::<FIXED>() {
            self.octets[name.len()..question.len()].copy_from_slice(fixed);
        }
        self.len = question.len();
        self.flags = (u8::from(query.dnssec_ok()) * Key::DNSSEC_OK)
            | (u8::from(flags.has(Flags::CD)) * Key::CHECKING_DISABLED)
            | (u8::from(flags.has(Flags::RD)) * Key::RECURSION_DESIRED);
        let mut hasher = self.hasher.build_hasher();
        let question = self.question();
        for vector in question.as_chunks::<VECTOR>().0 {
            hasher.write_u128(u128::from_ne_bytes(*vector));
        }
        if let Some(last) = self.octets[..question.len().max(VECTOR)].last_chunk::<VECTOR>() {
            hasher.write_u128(u128::from_ne_bytes(*last) ^ u128::from(self.flags) << 64);
        }
        self.hash = hasher.finish();
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
    #[inline]
    pub fn name(&self) -> &[u8] {
        self.question().split_last_chunk::<FIXED>().map_or(&[], |(name, _)| name)
    }

    /// The question section: name, type and class.
    #[inline]
    pub fn question(&self) -> &[u8] {
        &self.octets[..self.len]
    }

    /// DO, CD and RD as bits.
    #[inline]
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// A hash of all of it, seeded anew in every process.
    #[inline]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// A copy to keep.
    pub fn to_stored(&self) -> StoredKey {
        StoredKey { hash: self.hash, octets: [self.question(), &[self.flags]].concat().into() }
    }
}

impl StoredKey {
    /// The name, lower case, uncompressed wire octets.
    pub fn name(&self) -> &[u8] {
        &self.octets[..self.octets.len() - FIXED - 1]
    }
}

impl std::hash::Hash for StoredKey {
    #[inline]
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}
