//! Signals, as something that can be polled.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::low_level::pipe;

/// What an operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, SIGINT: end in order.
    Terminate,
    /// SIGQUIT: end now.
    Quit,
    /// SIGUSR1: look for a new configuration.
    Reload,
}

/// The signals that mean something. SIGHUP and SIGUSR2 are taken and ignored, as by node-cache.
#[derive(Debug)]
pub struct Signals {
    pipes: Vec<(Option<Signal>, UnixStream)>,
}

impl Signals {
    /// From here on none of them ends the process.
    pub fn listen() -> io::Result<Signals> {
        let meanings = [
            (SIGTERM, Some(Signal::Terminate)),
            (SIGINT, Some(Signal::Terminate)),
            (SIGQUIT, Some(Signal::Quit)),
            (SIGUSR1, Some(Signal::Reload)),
            (SIGHUP, None),
            (SIGUSR2, None),
        ];
        let listen = |(number, meaning)| {
            let (read, write) = UnixStream::pair()?;
            read.set_nonblocking(true)?;
            pipe::register(number, write)?;
            Ok((meaning, read))
        };
        Ok(Signals { pipes: meanings.into_iter().map(listen).collect::<io::Result<_>>()? })
    }

    /// To be polled.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.pipes.iter().map(|(_, pipe)| pipe.as_fd())
    }

    /// Those that have come. Of one kind that came several times in a row it is one.
    pub fn take(&mut self) -> Vec<Signal> {
        let mut taken = Vec::new();
        for (meaning, pipe) in &mut self.pipes {
            if pipe.read(&mut [0; 64]).is_ok_and(|read| read > 0) {
                taken.extend(*meaning);
            }
        }
        taken
    }
}
