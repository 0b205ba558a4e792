//! Replies made up here.

use crate::wire::{Flags, HEADER, Query, Rcode};

/// The reply to `query` with these answer records, as they stand on the wire; their owner is the name of the
/// question, at octet 12. Whoever made it up has authority, except for a failure (CoreDNS's rule).
pub(super) fn compose(query: &Query<'_>, rcode: Rcode, records: &[Vec<u8>]) -> Vec<u8> {
    let authority = if rcode == Rcode::SERVFAIL { 0 } else { Flags::AA };
    let flags = Flags::QR | authority | query.flags().0 & (Flags::RD | Flags::CD) | rcode.0;
    let count = u16::try_from(records.len()).unwrap_or(u16::MAX);
    let mut reply = vec![0; HEADER];
    reply[..2].copy_from_slice(&query.id());
    reply[2..4].copy_from_slice(&flags.to_be_bytes());
    reply[5] = 1;
    reply[6..8].copy_from_slice(&count.to_be_bytes());
    reply.extend(query.question());
    reply.extend(records.iter().take(usize::from(count)).flatten());
    reply
}
