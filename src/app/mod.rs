//! The wiring: flags to a guardian, and in its worker flags and configuration to what answers.
//!
//! ```text
//! guardian  start a worker ─► bind what it wants ─► link ─► it answers ─► rules ─► ready
//! worker    load ─► want sockets ─► threads answer ─► stand ─► serve ─► quiet ─► last answers
//! stop      rules ─► in-flight queries ─► link
//! ```
//!
//! A worker serves one configuration for as long as it lives.

mod environment;
mod expanded;
mod inspection;
mod plan;
mod relays;
mod reload;
pub mod remedy;
mod threads;
mod upstream_metrics;
mod work;

use std::ffi::OsString;

use anyhow::{Context, Result};

use crate::cli::{self, Args};
use crate::{confinement, guardian, logging};

pub use work::work;

/// Serves until a signal or a successor ends it. The result is the process's exit status.
///
/// `words` is the command line without the program's name; workers are given the same.
pub fn serve(args: &Args, words: &[OsString]) -> Result<i32> {
    raise_file_limit();
    let confinement = confinement::keep_to_the_network();
    let log = logging::start().context("cannot start the log")?;
    confinement.log();
    let worker = std::iter::once(OsString::from(cli::WORKER));
    let status = guardian::run(&guardian::Config {
        node: args.node(),
        keep: args.skip_teardown,
        arguments: worker.chain(words.iter().cloned()).collect(),
        handover: args.handover.clone(),
        identity: std::env::var("POD_UID").unwrap_or_default(),
        pid_file: args.pid_file.clone(),
    });
    drop(log);
    Ok(status?)
}

/// Each TCP client is a file, and each query that is relayed. The soft limit is often 1024 only for the
/// sake of `select`, which nothing here uses.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Not being allowed to leaves the limit as it was, and `accept` copes.
    let _ = setrlimit(Resource::Nofile, limit);
}
