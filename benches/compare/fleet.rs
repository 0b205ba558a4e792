//! All servers of a run, up at the same time and measured in turn.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tempfile::TempDir;

use crate::load::{Load, Outcome, Pace};
use crate::peers::Peer;
use crate::process::{Process, first_answer};
use crate::questions::{Questions, ZONE};

/// A server that answers.
pub struct Server {
    pub name: &'static str,
    pub address: SocketAddr,
    pub process: Process,
    /// From its start to its first answer.
    pub start: Duration,
    _home: TempDir,
}

impl Server {
    /// Starts `peer` and waits for an answer.
    pub fn start(peer: &Peer, upstream: SocketAddr) -> io::Result<Server> {
        let home = tempfile::tempdir()?;
        let (mut command, address) = peer.prepare(home.path(), upstream)?;
        let process = Process::start(&mut command)?;
        match first_answer(address, &format!("h0.{ZONE}"), Duration::from_secs(15)) {
            Some(start) => Ok(Server { name: peer.name, address, process, start, _home: home }),
            None => Err(io::Error::other(format!("{} does not answer: {command:?}", peer.name))),
        }
    }

    /// A load for it, as fast as it answers: 32 sockets with 8 queries each.
    pub fn closed_loop(&self, seconds: f64) -> Load {
        let duration = Duration::from_secs_f64(seconds);
        Load {
            server: self.address,
            pace: Pace::ClosedLoop,
            sockets: 32,
            window: 256,
            duration,
            count: u64::MAX,
        }
    }

    /// A load for it at a steady rate.
    pub fn paced(&self, rate: f64, seconds: f64) -> Load {
        Load { pace: Pace::PerSecond(rate), ..self.closed_loop(seconds) }
    }

    /// What `load` gives, and the server's CPU time for each answer, microseconds.
    pub fn measure(&self, load: Load, questions: &mut dyn Questions) -> io::Result<(Outcome, f64)> {
        let before = self.process.cpu();
        let outcome = load.run(questions)?;
        let spent = self.process.cpu().saturating_sub(before);
        let cpu = spent.as_secs_f64() * 1e6 / outcome.answered.max(1) as f64;
        Ok((outcome, cpu))
    }

    /// Asks `count` questions, a few at a time, so that no peer loses any on the way to the upstream.
    pub fn fill(&self, questions: &mut dyn Questions, count: u64) -> io::Result<Outcome> {
        Load { count, window: 32, ..self.closed_loop(30.0) }.run(questions)
    }
}
