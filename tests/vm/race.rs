//! The tool of the guests in `tests/vm`: racing pairs, and servers to race to.
//!
//!     race serve ID ADDRESS...          answers on port 53 until killed
//!     race pairs SERVER COUNT           pairs one after the other, each with a name of its own
//!     race many SERVER COUNT NAMES N    pairs of so many names, N of them at once
//!     race slow SERVER COUNT MS MORE    pairs whose answers take MS, all at once, and may take MORE besides
//!     race counters                     conntrack's, summed over CPUs
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here fails the guest")]

#[path = "../common/mod.rs"]
mod common;

use std::time::Duration;

use common::race::{Pairs, counters, run, serve};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["serve", id, ref addresses @ ..] => {
            addresses.iter().for_each(|address| serve(id.parse().unwrap(), address.parse().unwrap()));
            loop {
                std::thread::park();
            }
        }
        ["pairs", server, count] => {
            println!("{}", run(&Pairs::new(count.parse().unwrap()), server.parse().unwrap()).line());
        }
        ["many", server, count, names, at_once] => {
            let (names, at_once) = (names.parse().unwrap(), at_once.parse().unwrap());
            // An emulated machine with a busy host under it may be slow, and nothing lost.
            let patience = Duration::from_secs(15);
            let pairs = Pairs { names, at_once, patience, ..Pairs::new(count.parse().unwrap()) };
            println!("{}", run(&pairs, server.parse().unwrap()).line());
        }
        ["slow", server, count, delay, more] => {
            let more = Duration::from_millis(more.parse().unwrap());
            let pairs = Pairs::slow(count.parse().unwrap(), delay.parse().unwrap(), more);
            println!("{}", run(&pairs, server.parse().unwrap()).line());
        }
        ["counters"] => {
            let all = counters();
            let count = |name: &str| all.get(name).copied().unwrap_or(0);
            // The kernel's own spelling of clash_resolve.
            let clashes = count("clashres") + count("clash_resolve");
            println!("clashes={clashes} insert_failed={} drop={}", count("insert_failed"), count("drop"));
        }
        _ => panic!("see the head of tests/vm/race.rs"),
    }
}
