//! What makes two questions the same question.

use std::hash::BuildHasher;
use std::sync::LazyLock;

use super::header::Flags;
use super::name::MAX_NAME;
use super::query::Query;

/// Octets before the name: flags, type, class.
const PREFIX: usize = 5;

/// One seed for the process, so that a key's hash is good in every table, and unknown to clients.
static HASHER: LazyLock<foldhash::fast::RandomState> = LazyLock::new(foldhash::fast::RandomState::default);

/// A question in canonical form: DO, CD and RD, type, class, and the name in lower case.
///
/// CoreDNS 1.13.2 keys on DO, CD, type and name. Class and RD are added: an answer to another
/// class, or to a query without recursion, is not an answer to this one.
///
/// It is a buffer to be written over, so that looking up allocates nothing.
#[derive(Clone)]
pub struct Key {
    hasher: foldhash::fast::RandomState,
    hash: u64,
    len: usize,
    octets: [u8; PREFIX + MAX_NAME],
}

/// A [`Key`] to be kept: 24 octets and the question's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    hash: u64,
    octets: Box<[u8]>,
}

impl Default for Key {
    fn default() -> Key {
        Key { hasher: HASHER.clone(), hash: 0, len: 0, octets: [0; PREFIX + MAX_NAME] }
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
    #[inline]
    pub fn set(&mut self, query: &Query<'_>) {
        let flags = query.flags();
        let question = query.question();
        let name_len = question.len() - 4;
        self.octets[0] = (u8::from(query.dnssec_ok()) * Key::DNSSEC_OK)
            | (u8::from(flags.has(Flags::CD)) * Key::CHECKING_DISABLED)
            | (u8::from(flags.has(Flags::RD)) * Key::RECURSION_DESIRED);
        self.octets[1..PREFIX].copy_from_slice(&question[name_len..]);
        // Length octets are at most 63 and 'A' is 65: folding the whole name leaves them alone.
        for (to, from) in self.octets[PREFIX..].iter_mut().zip(&question[..name_len]) {
            *to = from.to_ascii_lowercase();
        }
        self.len = PREFIX + name_len;
        self.hash = self.hasher.hash_one(&self.octets[..self.len]);
    }

    /// The name, lower case, uncompressed wire octets.
    #[inline]
    pub fn name(&self) -> &[u8] {
        &self.octets[PREFIX..self.len]
    }

    /// Whether `stored` is this key.
    #[inline]
    pub fn is(&self, stored: &StoredKey) -> bool {
        self.octets[..self.len] == *stored.octets
    }

    /// A copy to keep.
    pub fn to_stored(&self) -> StoredKey {
        StoredKey { hash: self.hash, octets: self.octets[..self.len].into() }
    }
}

impl StoredKey {
    /// Octets on the heap.
    pub fn heap_size(&self) -> usize {
        self.octets.len()
    }

    /// The name, lower case, uncompressed wire octets.
    pub fn name(&self) -> &[u8] {
        &self.octets[PREFIX..]
    }
}

impl std::hash::Hash for Key {
    #[inline]
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl std::hash::Hash for StoredKey {
    #[inline]
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Hands a key's own hash through: it is seeded and mixed already.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeyHasher(u64);

impl std::hash::Hasher for KeyHasher {
    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }

    /// Keys write one `u64`; anything else would be a table of something else.
    fn write(&mut self, octets: &[u8]) {
        self.0 = HASHER.hash_one(octets);
    }

    #[inline]
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Builds [`KeyHasher`]s.
pub type BuildKeyHasher = std::hash::BuildHasherDefault<KeyHasher>;
