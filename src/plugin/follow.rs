//! What is behind an alias: asked of the server itself, so that a client gets addresses and not only a name.

use domain::base::name::ToName;
use domain::base::{Message, ParsedName, Rtype, UnknownRecordData};
use domain::rdata::Cname;

use super::draft;
use crate::wire::{HEADER, Query};

/// The name that `record`, uncompressed, says its owner is an alias of, in wire octets.
pub(super) fn target(record: &[u8]) -> Option<&[u8]> {
    let mut at = 0;
    while let length @ 1.. = usize::from(*record.get(at)?) {
        at += 1 + length;
    }
    let fixed = record.get(at + 1..)?;
    (fixed.get(..2)? == Rtype::CNAME.to_int().to_be_bytes()).then_some(fixed.get(10..)?)
}

/// The answer records, uncompressed, to what `query` asks, asked of `target`. None if there is no answer.
pub(super) async fn follow(
    query: &Query<'_>,
    target: &[u8],
    lookup: &mut impl AsyncFnMut(&[u8], &[u8]) -> Option<Vec<u8>>,
) -> Vec<Vec<u8>> {
    let own = query.name().len();
    let (header, question) = query.octets().split_at(HEADER);
    let message = [header, target, question.get(own..).unwrap_or_default()].concat();
    let Some(reply) = lookup(&message, &target.to_ascii_lowercase()).await else {
        return Vec::new();
    };
    answers(&reply).unwrap_or_default()
}

/// The answer records of `message`, uncompressed: addresses, aliases and what has no name in its data.
fn answers(message: &[u8]) -> Option<Vec<Vec<u8>>> {
    let message = Message::from_octets(message).ok()?;
    let mut records = Vec::new();
    for record in message.answer().ok()? {
        let record = record.ok()?;
        let owner = record.owner().to_vec();
        let rdata = match record.to_record::<Cname<ParsedName<&[u8]>>>().ok()? {
            Some(alias) => alias.data().cname().to_vec().as_slice().to_vec(),
            None => record.to_record::<UnknownRecordData<&[u8]>>().ok()??.data().data().to_vec(),
        };
        records.push(draft::record(
            owner.as_slice(),
            record.rtype().to_int(),
            record.ttl().as_secs(),
            &rdata,
        ));
    }
    Some(records)
}
