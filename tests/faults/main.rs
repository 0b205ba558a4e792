//! Upstreams that fail while queries go on: what clients notice, and what it costs the upstreams.
//!
//! ```text
//!  node: client ─► doorstep ─┬─ A: forward . host host          ┬─veth─ hosts: scripted upstream
//!                            └─ B: forward . VIP ─ nft DNAT, in ┴─          scripted upstream
//!                                                  turn
//! ```
//!
//! Each run has namespaces of its own: a dropped packet and a host without power are real ones.
//! `DOORSTEP_FAULTS=long` makes the loads long and heavy and lets no two runs overlap: that is how
//! the recorded tables come about.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here fails the test")]

#[path = "../common/client.rs"]
mod client;
#[allow(dead_code, reason = "each suite uses its own part")]
#[path = "../common/exposition.rs"]
mod exposition;
#[path = "../common/load.rs"]
mod load;
#[path = "../common/loopback.rs"]
mod loopback;
#[path = "../common/machine.rs"]
mod machine;
#[path = "../common/message.rs"]
mod message;
#[allow(dead_code, reason = "each suite uses its own part")]
#[path = "../common/netns.rs"]
mod netns;
#[path = "../common/plain_upstream.rs"]
mod plain_upstream;
#[path = "../common/scripted.rs"]
mod scripted;
#[path = "../common/server.rs"]
mod server;
#[path = "../common/upstream.rs"]
mod upstream;

mod broken;
mod external;
mod fairness;
mod fault;
mod idle;
mod rig;
mod rollout;
mod strays;
mod table;

use std::collections::VecDeque;
use std::sync::Mutex;

use machine::{alone, beside_others};

/// Whether tables are made to be recorded.
fn is_long() -> bool {
    std::env::var("DOORSTEP_FAULTS").is_ok_and(|mode| mode == "long")
}

/// Does `work` with each of `jobs`, so many at a time; the results stand in the order of the jobs.
fn side_by_side<J: Send, R: Send>(workers: usize, jobs: Vec<J>, work: impl Fn(J) -> R + Sync) -> Vec<R> {
    let jobs: Mutex<VecDeque<(usize, J)>> = Mutex::new(jobs.into_iter().enumerate().collect());
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let Some((index, job)) = jobs.lock().unwrap().pop_front() else { return };
                    let result = work(job);
                    results.lock().unwrap().push((index, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap();
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}
