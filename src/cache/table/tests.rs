//! A table by itself; what the cache makes of it is in `cache/tests.rs`.

use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::wire::{HEADER, Name, Query};

const NOW: Moment = Moment(1_000_000);

/// A query for the A records of `name`.
fn query(name: &str) -> Vec<u8> {
    let mut octets = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    octets.extend_from_slice(Name::from_text(name).unwrap().as_wire());
    octets.extend_from_slice(&[0, 1, 0, 1]);
    octets
}

fn key(name: &str) -> Key {
    Key::of(&Query::parse(&query(name)).unwrap())
}

/// A response with one TXT record of `len` octets, each of them `filler`.
fn answer(name: &str, len: usize, filler: u8) -> Answer {
    let mut octets = query(name);
    let question = octets[HEADER..].to_vec();
    octets[2..4].copy_from_slice(&[0x81, 0x80]);
    octets[7] = 1;
    octets.extend_from_slice(&[0xc0, 12, 0, 16, 0, 1, 0, 0, 1, 44]);
    octets.extend_from_slice(&(len as u16).to_be_bytes());
    octets.resize(octets.len() + len, filler);
    Answer::scan(&octets, &question).unwrap().0
}

fn insert(table: &Table, name: &str, len: usize, filler: u8) -> Option<u64> {
    let (key, answer) = (key(name), answer(name, len, filler));
    let (outline, octets) = (answer.outline(), answer.octets());
    table.insert(&Draft {
        store: Store::Success,
        key: &key,
        outline,
        octets,
        ttl: 300,
        now: NOW,
        popularity: 0,
    })
}

/// What a reader gets for `name`.
fn read(table: &Table, name: &str) -> Option<Answer> {
    let (key, mut out) = (key(name), vec![0; crate::wire::REPLY_ROOM]);
    let found = table.find(&key)?;
    let whole = table.copy(&found, &key, &mut out);
    whole.then(|| Answer::restore(found.outline, key.question(), &out).unwrap())
}

fn blocks_left(table: &Table) -> usize {
    table.writer.lock().unwrap().blocks_left[0]
}

#[test]
fn answers_of_every_length_come_back_as_they_went_in() {
    let table = Table::new([1024, 1]).unwrap();
    for len in (0..300).chain([4000, 40_000]) {
        insert(&table, "a.test", len, len as u8).unwrap();
        assert_eq!(read(&table, "a.test"), Some(answer("a.test", len, len as u8)), "{len} octets");
    }
    assert_eq!(table.len(Store::Success), 1);
}

#[test]
fn what_was_never_stored_or_was_removed_is_not_found() {
    let table = Table::new([16, 16]).unwrap();
    assert_eq!(read(&table, "a.test"), None);
    insert(&table, "a.test", 10, 1).unwrap();
    insert(&table, "b.test", 10, 2).unwrap();
    table.remove(&key("a.test"));
    assert_eq!(read(&table, "a.test"), None);
    assert!(read(&table, "b.test").is_some());
    assert_eq!(table.len(Store::Success), 1);
}

/// Whatever the hash says, an entry answers its own question only, asked the same way.
#[test]
fn the_question_decides() {
    let table = Table::new([16, 16]).unwrap();
    insert(&table, "a.test", 10, 1).unwrap();
    let found = table.find(&key("a.test")).unwrap();
    let mut out = [0; 512];
    assert!(table.copy(&found, &key("A.TEST"), &mut out));
    assert!(!table.copy(&found, &key("b.test"), &mut out));
    let mut without_recursion = query("a.test");
    without_recursion[2] = 0;
    let without_recursion = Key::of(&Query::parse(&without_recursion).unwrap());
    assert!(!table.copy(&found, &without_recursion, &mut out));
}

#[test]
fn every_block_comes_back() {
    let table = Table::new([64, 64]).unwrap();
    for round in 0..1000 {
        let name = format!("n{}.test", round % 100);
        if round % 7 == 0 {
            table.remove(&key(&name));
        } else {
            insert(&table, &name, round % 900, 0).unwrap();
        }
    }
    (0..100).for_each(|n| table.remove(&key(&format!("n{n}.test"))));
    assert_eq!(table.len(Store::Success), 0);
    assert_eq!(blocks_left(&table), 64 * OCTETS_PER_ENTRY / BLOCK);
}

#[test]
fn octets_are_bounded_as_well_as_entries() {
    let table = Table::new([64, 64]).unwrap();
    let evicted: u64 = (0..64).map(|n| insert(&table, &format!("n{n}.test"), 2000, 0).unwrap()).sum();
    assert_eq!(evicted as usize + table.len(Store::Success), 64);
    assert!(
        (10..=16).contains(&table.len(Store::Success)),
        "{} entries of 2 KB in 32 KB",
        table.len(Store::Success)
    );
    assert_eq!(insert(&table, "large.test", 40_000, 0), None);
}

#[test]
fn chains_of_one_bucket_lose_nobody() {
    let table = Table::new([2, 2]).unwrap();
    for (old, new) in ["a", "b", "c", "d", "e", "f", "g"].iter().zip(["b", "c", "d", "e", "f", "g", "h"]) {
        insert(&table, old, 5, 0).unwrap();
        insert(&table, new, 5, 0).unwrap();
        assert!(read(&table, old).is_some() && read(&table, new).is_some(), "{old} and {new}");
    }
}

/// As a writer that was preempted, or died, leaves it.
#[test]
fn a_slot_that_is_being_written_is_not_read() {
    let table = Table::new([16, 16]).unwrap();
    insert(&table, "a.test", 10, 1).unwrap();
    let slot = table.find(&key("a.test")).unwrap().slot;
    table.slot(slot).unwrap()[field::SEQUENCE].fetch_add(1, Relaxed);
    assert_eq!(read(&table, "a.test"), None);
    insert(&table, "a.test", 20, 2).unwrap();
    assert!(read(&table, "a.test").is_some(), "written anew");
}

/// One thread replaces, removes and evicts as fast as it can; two read. Whatever they read is an answer
/// that was stored.
#[test]
fn readers_see_whole_answers_or_none() {
    let table = Table::new([2, 2]).unwrap();
    let names: Vec<String> = (0..3).map(|n| format!("name{n}.test")).collect();
    let stop = AtomicBool::new(false);
    let (mut reads, mut torn) = (0, 0);
    thread::scope(|scope| {
        let reader = || {
            let (mut seen, mut mixed) = (0u64, 0u64);
            while !stop.load(Relaxed) {
                for name in &names {
                    let Some(answer) = read(&table, name) else { continue };
                    seen += 1;
                    // Behind flags and counts, and what a record has before its data.
                    let text = 8 + 12;
                    let len = answer.octets().len() - text - 2;
                    mixed += u64::from(answer != self::answer(name, len, answer.octets()[text]));
                }
            }
            (seen, mixed)
        };
        let readers = [scope.spawn(reader), scope.spawn(reader)];
        let end = Instant::now() + Duration::from_millis(500);
        for round in 0usize.. {
            let name = &names[round % names.len()];
            if round % 7 == 0 {
                table.remove(&key(name))
            } else {
                insert(&table, name, 1 + round % 200, round as u8).unwrap();
            }
            if round % 64 == 0 && Instant::now() > end {
                break;
            }
        }
        stop.store(true, Relaxed);
        for reader in readers {
            let (seen, mixed) = reader.join().unwrap();
            (reads, torn) = (reads + seen, torn + mixed);
        }
    });
    assert!(reads > 1000, "only {reads} reads");
    assert_eq!(torn, 0, "of {reads} reads");
}
