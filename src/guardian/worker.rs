//! A worker process, as its guardian sees it.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};

use super::channel::Channel;
use super::message::{Message, Standing};
use crate::sockets::Listen;

/// The program that runs, whatever has become of its file meanwhile.
const SELF: &str = "/proc/self/exe";

/// A child process. Its standard input is the other end of the channel.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    /// What is said to it and by it.
    pub channel: Channel,
    /// The sockets it asked for.
    pub listens: Vec<Listen>,
    /// Set once it answers.
    pub standing: Option<Standing>,
}

impl Worker {
    /// Starts the program that runs with these `arguments`.
    pub fn spawn(arguments: &[OsString]) -> io::Result<Worker> {
        let (channel, theirs) = Channel::pair()?;
        let child = Command::new(SELF).arg0("doorstep").args(arguments).stdin(theirs.into_fd()).spawn()?;
        Ok(Worker { child, channel, listens: Vec::new(), standing: None })
    }

    /// Says `message`. A worker that cannot be told is about to be found dead, or silent.
    pub fn tell(&self, message: &Message) {
        if let Err(error) = self.channel.send(message) {
            tracing::debug!("worker {}: {error}", self.child.id());
        }
    }

    /// Whether its main thread runs, waits for a CPU, or for memory or a disk: not stopped, and not asleep.
    pub fn is_busy(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // Behind the name, which may hold anything (proc_pid_stat(5)).
        let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
        matches!(state, Some('R' | 'D'))
    }

    /// SIGKILL. Its end shows on the channel.
    pub fn kill(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
    }

    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sees the process off that has closed its end of the channel.
    pub fn bury(mut self) -> Option<ExitStatus> {
        self.kill();
        self.child.wait().ok()
    }
}
