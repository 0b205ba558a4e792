//! From one guardian to the next, so that an upgrade loses no query.
//!
//! ```text
//! successor                         predecessor
//! ask (what it is to serve)  ─────►
//!                            ◄───── offer: sockets, the table's lease, caches
//! its worker stands
//! takes up rules and link
//! taken                      ─────► leaves rules and link alone, retires its worker
//!                            ◄───── quiet: what its caches hold now is final
//!                                   ends once its last query is answered
//! ```
//!
//! Until `taken` the predecessor serves on, and does so if the successor goes away. After it, until its
//! own end, it takes back what it gave if the successor goes away.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::channel::{Channel, ReceiveError};
use super::door::{self, Door};
use super::message::{self, Message};
use super::signals::{Signal, Signals};
use super::state::{Event, State};
use super::{Guardian, Outcome};
use crate::node::Backend;
use crate::sockets::{Listen, Role};

/// The predecessor may be in the middle of a repair that waits for the lock of iptables.
const PATIENCE: Duration = Duration::from_secs(6);
/// Pods that are remembered as taken over from.
const ANCESTORS: usize = 8;
const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Guardian<'_> {
    /// Takes over the sockets and all from the process that serves the same addresses, if there is one.
    pub(super) fn succeed(&mut self, listens: &[Listen]) {
        let Some(directory) = &self.config.handover else { return };
        let predecessor = match door::knock(directory) {
            Ok(Some(predecessor)) => predecessor,
            Ok(None) => return,
            Err(error) => return tracing::warn!("-handover: {error}; nothing is taken over"),
        };
        let ask = Message::Ask {
            version: VERSION.to_owned(),
            identity: self.config.identity.clone(),
            namespace: namespace(),
            listens: listens.to_vec(),
        };
        let answer = predecessor.send(&ask).map_err(|error| error.to_string());
        match answer.and_then(|()| receive(&predecessor)) {
            Ok(Message::Offer { version, identity, sockets, lease, caches }) => {
                tracing::info!("taking over from doorstep {version}");
                self.sockets.adopt(sockets);
                self.caches = caches;
                let nftables = self.config.node.backend != Some(Backend::Iptables);
                if let Some(lease) = lease.filter(|_| nftables && self.config.node.setup_rules) {
                    self.host.adopt_lease(lease);
                }
                self.succession.taken_from = identity.split_whitespace().map(str::to_owned).collect();
                self.succession.predecessor = Some(predecessor);
            }
            Ok(Message::Wait) => {
                tracing::info!("the successor of this pod serves; waiting until it ends");
                self.outcome = Some(Outcome::Wait(predecessor));
            }
            Ok(Message::Refused(why)) => tracing::warn!("-handover: nothing is taken over: {why}"),
            Ok(other) => tracing::warn!("-handover: not an offer: {other:?}"),
            Err(error) => tracing::warn!("-handover: nothing is taken over: {error}"),
        }
    }

    /// Our worker answers: the predecessor may go.
    pub(super) fn take_over(&mut self) {
        if let Some(predecessor) = &self.succession.predecessor
            && let Err(error) = predecessor.send(&Message::Taken)
        {
            tracing::warn!("the predecessor is gone already: {error}");
        }
    }

    pub(super) fn hear_predecessor(&mut self) {
        let Some(predecessor) = &self.succession.predecessor else { return };
        let totals = match predecessor.try_receive() {
            Ok(Message::Quiet { totals }) => totals,
            Ok(_) | Err(ReceiveError::Empty) => return,
            Err(_) => {
                self.succession.predecessor = None;
                if self.announced {
                    tracing::info!("the predecessor has ended");
                }
                None
            }
        };
        if let State::Serving { worker, .. } = self.machine.state() {
            self.tell(worker, &Message::CatchUp { totals });
        }
    }

    /// Listens for successors.
    pub(super) fn open_door(&mut self) {
        let Some(directory) = &self.config.handover else { return };
        // Who serves other addresses keeps its door.
        if self.succession.predecessor.is_none() && matches!(door::knock(directory), Ok(Some(_))) {
            let directory = directory.display();
            return tracing::warn!(
                "-handover {directory}: taken by a process with other addresses; give each its own"
            );
        }
        match Door::open(directory) {
            Ok(door) => self.succession.door = Some(door),
            Err(error) => tracing::warn!("-handover: {error}; an upgrade will not be without a gap"),
        }
    }

    /// Somebody knocks.
    pub(super) fn admit(&mut self) {
        let Some(door) = &self.succession.door else { return };
        let visitor = match door.accept() {
            Ok(visitor) => visitor,
            Err(error) => return tracing::warn!("-handover: {error}"),
        };
        // A process that looks whether anybody is there goes away again.
        let Ok(ask) = receive(&visitor) else { return };
        let refusal = match self.judge(&ask) {
            Verdict::Offer(version) => return self.offer(visitor, &version),
            Verdict::Wait => {
                if visitor.send(&Message::Wait).is_ok() {
                    self.succession.waiting.push(visitor);
                }
                return;
            }
            Verdict::Refuse(why) => why,
        };
        tracing::warn!("-handover: a process that asks to take over is refused: {refusal}");
        // The visitor goes its own way, told or not.
        let _ = visitor.send(&Message::Refused(refusal.to_owned()));
    }

    fn judge(&self, ask: &Message) -> Verdict {
        let Message::Ask { version, identity, namespace: theirs, listens } = ask else {
            return Verdict::Refuse("it does not ask");
        };
        let serves = !matches!(
            self.machine.state(),
            State::Starting { .. } | State::Yielding | State::Leaving { worker: None, .. } | State::Ended
        );
        let ours = self.sockets.listens();
        if *theirs != namespace() {
            Verdict::Refuse("it lives in another network namespace")
        } else if !listens.iter().any(|wanted| ours.iter().any(|listen| overlap(wanted, listen))) {
            Verdict::Refuse("it serves other addresses")
        } else if self.succession.taken_from.contains(identity) {
            Verdict::Wait
        } else if !serves || self.succession.successor.is_some() {
            Verdict::Refuse("this process is being started, ended or succeeded")
        } else {
            Verdict::Offer(version.clone())
        }
    }

    fn offer(&mut self, successor: Channel, version: &str) {
        tracing::info!("doorstep {version} is taking over");
        // Two processes must not repair the same thing.
        let lease = self.host.pause();
        let offered = self.sockets.share(&self.sockets.listens()).and_then(|sockets| {
            let caches = message::share(&self.caches)?;
            let identity = self.line_of_succession();
            successor.send(&Message::Offer { version: VERSION.to_owned(), identity, sockets, lease, caches })
        });
        match offered {
            Ok(()) => self.succession.successor = Some(successor),
            Err(error) => {
                tracing::error!("-handover: {error}");
                self.host.resume();
            }
        }
    }

    /// This process, and those before it, as words.
    fn line_of_succession(&self) -> String {
        let own = self.config.identity.split_whitespace().take(1);
        let earlier = self.succession.taken_from.iter().map(String::as_str);
        own.chain(earlier).take(ANCESTORS).collect::<Vec<_>>().join(" ")
    }

    pub(super) fn hear_successor(&mut self) {
        let Some(successor) = &self.succession.successor else { return };
        match successor.try_receive() {
            Ok(Message::Taken) => {
                self.succession.door = None;
                self.pending.push_back(Event::Taken);
            }
            Ok(_) | Err(ReceiveError::Empty) => {}
            Err(_) => {
                self.succession.successor = None;
                tracing::error!("-handover: the successor is gone");
                // Unless it had taken over: then that is undone by the event.
                self.host.resume();
                self.pending.push_back(Event::SuccessorGone);
            }
        }
    }
}

enum Verdict {
    Offer(String),
    Wait,
    Refuse(&'static str),
}

/// Waits for one message, within reason.
fn receive(channel: &Channel) -> Result<Message, String> {
    let timeout = Timespec::try_from(PATIENCE).map_err(|error| error.to_string())?;
    let mut polled = [PollFd::new(channel, PollFlags::IN)];
    let ready = rustix::io::retry_on_intr(|| poll(&mut polled, Some(&timeout)));
    match ready.map_err(|error| error.to_string())? {
        0 => Err(format!("no answer within {PATIENCE:?}")),
        _ => channel.try_receive().map_err(|error| error.to_string()),
    }
}

/// Waits for the end of the process at the other end of `server`; `false`: a signal to end came first.
pub(super) fn outlives(server: &Channel, signals: &mut Signals) -> io::Result<bool> {
    loop {
        let fds = std::iter::once(server.as_fd()).chain(signals.fds());
        let mut polled: Vec<PollFd<'_>> = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        match poll(&mut polled, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if signals.take().iter().any(|signal| *signal != Signal::Reload) {
            return Ok(false);
        }
        if matches!(server.try_receive(), Err(error) if !matches!(error, ReceiveError::Empty)) {
            tracing::info!("the process that served has ended");
            return Ok(true);
        }
    }
}

/// Whether queries to one may be for the other.
fn overlap(one: &Listen, other: &Listen) -> bool {
    let (a, b) = (one.address, other.address);
    let everywhere = a.ip().is_unspecified() || b.ip().is_unspecified();
    let dns = one.role == Role::DnsUdp && other.role == Role::DnsUdp;
    dns && a.port() == b.port() && (a.ip() == b.ip() || everywhere && a.is_ipv4() == b.is_ipv4())
}

/// The network namespace, by inode; 0 where /proc does not say.
fn namespace() -> u64 {
    fs::metadata("/proc/self/ns/net").map_or(0, |metadata| metadata.ino())
}
