//! DNS messages as bytes (RFC 1035 §4).
//!
//! Client bytes enter as a [`Query`], upstream bytes as an [`Answer`], and everything a client sees
//! leaves through [`Reply`]. Nothing here allocates on the way of a hit, and nothing here is `unsafe`.

mod answer;
mod balance;
mod edns;
mod header;
mod key;
mod message;
mod name;
mod query;
mod reply;
#[cfg(test)]
mod tests;
mod whoami;

pub use answer::{Answer, Kind, Lifetime, Outline, Unscannable};
pub use balance::{Balance, Subnet};
pub use edns::{Edns, ExtendedError};
pub use header::{Flags, HEADER, Opcode, Rcode, record_type};
pub use key::{Key, StoredKey};
pub use message::{Message, ResourceRecord};
pub use name::{MAX_NAME, Name, NameError, same_octets, write_text};
pub use query::{Query, Rejected, same_question};
pub use reply::{Reply, Terms};

/// Longest message over TCP (RFC 1035 §4.2.2).
pub const MAX_MESSAGE: usize = 65_535;
/// Octets in which any reply can be made: a message, and the TTL offsets that stand behind a kept one.
pub const REPLY_ROOM: usize = (MAX_MESSAGE + 2 * answer::MAX_RECORDS).next_multiple_of(64);
