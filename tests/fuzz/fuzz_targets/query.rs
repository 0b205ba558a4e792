//! Whatever a client sends is refused or understood, and every reply to it is a message.

#![no_main]

use doorstep::wire::{Key, MAX_MESSAGE, Query, REPLY_ROOM, Reply};
use hickory_proto::op::Message;
use libfuzzer_sys::fuzz_target;

#[derive(Debug, arbitrary::Arbitrary)]
struct Input {
    packet: Vec<u8>,
    response: Vec<u8>,
    limit: u16,
}

fuzz_target!(|input: Input| {
    // A query's first counts are nearly always the same; let half of the inputs have them.
    let mut packet = input.packet;
    if packet.len() > 12 && packet[0] & 1 == 1 {
        packet[2] &= 0x07;
        packet[4..11].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0]);
        packet[11] &= 1;
    }
    let mut out = vec![0; REPLY_ROOM];
    let query = match Query::parse(&packet) {
        Ok(query) => query,
        Err(rejected) => {
            let len = Reply::reject(&mut out, &packet, rejected);
            assert!(len.is_none_or(|len| len == 12 && out[..2] == packet[..2]));
            return;
        }
    };
    let key = Key::of(&query);
    assert_eq!(key.question().len() + 1, key.name().len() + 5);
    assert!(key.name().eq_ignore_ascii_case(query.name()));

    let upstream = query.upstream_message(1232);
    let again = Query::parse(&upstream).expect("what is sent upstream is a query");
    if query.is_cacheable() {
        assert!(again.is_cacheable());
        assert_eq!(Key::of(&again).to_stored(), key.to_stored());
        assert_eq!(again.edns().map(|edns| edns.udp_size), Some(1232));
        Message::from_vec(&upstream).expect("others read what is sent upstream");
    }

    let len = Reply::error(&mut out, &query, doorstep::wire::Rcode::SERVFAIL, None);
    assert!(len <= 512);
    assert_eq!(out[..2], query.id());
    let error = Message::from_vec(&out[..len]).expect("others read an error");
    assert_eq!(error.edns.is_some(), query.edns().is_some());

    // Half of the responses answer the question.
    let mut response = input.response;
    if response.first().is_some_and(|octet| octet & 1 == 1) {
        let at = response.len().min(12);
        response.splice(at..at, query.question().iter().copied());
    }
    let limit = usize::from(input.limit).max(512);
    response.truncate(MAX_MESSAGE);
    let len = Reply::opaque(&mut out, &query, &response, limit);
    assert!((12..=limit).contains(&len));
    assert_eq!(out[..2], query.id());
});
