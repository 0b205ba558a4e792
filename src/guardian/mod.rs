//! The process that owns sockets, link and rules, and replaces the worker that answers.
//!
//! It reads no packet, holds no configuration and uses no asynchronous runtime: there is little in it
//! that could fail. Replacing the worker is how a configuration is taken up, a crash is mended and, by
//! way of a second guardian, a new version comes.
//!
//! | file | what |
//! |---|---|
//! | `state` | what to do next, as a pure function |
//! | `perform` | doing it |
//! | `succession` | taking over from another guardian, and giving up to one |
//! | `worker` | the child process; `channel`, `message`: what is said to it and by it |
//! | `host` | link and rules |
//! | `neighbour` | a server of another make at the same addresses |
//! | `relay` | what answers while no worker stands |
//! | `door` | where a successor knocks |

pub mod channel;
pub mod counts;
mod door;
mod host;
pub mod message;
mod neighbour;
mod perform;
mod relay;
mod signals;
pub mod state;
mod succession;
mod worker;

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::clock;
use crate::node;
use crate::sockets::{Listen, Role, Sockets};
use channel::{Channel, ReceiveError};
use counts::Counts;
use door::Door;
use host::Host;
use message::{CacheFile, Message};
use neighbour::Neighbour;
use relay::Relay;
use signals::{Signal, Signals};
use state::{Event, Id, Machine, PULSE_MS, State};
use worker::Worker;

/// Messages of one worker that are read before others get their turn.
const MESSAGES: usize = 16;

/// What is left of the grace period when a successor is late, milliseconds.
const SUCCESSION_MS: u64 = 5_000;

/// What to guard.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node's state.
    pub node: node::Config,
    /// `-skipteardown`.
    pub keep: bool,
    /// A worker's arguments, the program's name not among them.
    pub arguments: Vec<OsString>,
    /// `-handover`; `None`: off.
    pub handover: Option<PathBuf>,
    /// What this process is beyond its own life, such as the pod's UID; empty: nothing.
    pub identity: String,
    /// `-pidfile`.
    pub pid_file: Option<PathBuf>,
}

/// How it went.
enum Outcome {
    /// The process's exit status.
    Exit(i32),
    /// Another process has taken over from this pod: nothing to do before that one ends.
    Wait(Channel),
}

/// Serves until a signal or a successor ends it. The result is the process's exit status.
pub fn run(config: &Config) -> io::Result<i32> {
    let mut signals = Signals::listen()?;
    loop {
        match Guardian::new(config).serve(&mut signals)? {
            Outcome::Exit(status) => return Ok(status),
            Outcome::Wait(server) => {
                if !succession::outlives(&server, &mut signals)? {
                    return Ok(0);
                }
            }
        }
    }
}

struct Guardian<'a> {
    config: &'a Config,
    machine: Machine,
    /// What happened while something was done.
    pending: VecDeque<Event>,
    workers: BTreeMap<Id, Worker>,
    sockets: Sockets,
    host: Host,
    counts: Counts,
    relay: Option<Relay>,
    relays: Vec<SocketAddr>,
    unrelayed: Vec<SocketAddr>,
    /// Of the worker that answered last.
    caches: Vec<CacheFile>,
    /// Of the worker that fell quiet last, until the next has them.
    totals: Option<OwnedFd>,
    lameduck_ms: u64,
    refusal: String,
    succession: Succession,
    neighbour: Neighbour,
    announced: bool,
    outcome: Option<Outcome>,
}

/// Other guardians.
#[derive(Default)]
struct Succession {
    /// Whether a predecessor was looked for.
    knocked: bool,
    /// Whom this one takes over from, until it is gone.
    predecessor: Option<Channel>,
    /// What it was, and those that it and its like had taken over from.
    taken_from: Vec<String>,
    door: Option<Door>,
    /// Who takes over from this one.
    successor: Option<Channel>,
    /// Those that this one took over from, started anew.
    waiting: Vec<Channel>,
}

/// What can be read.
enum Source {
    Signals,
    Door,
    Successor,
    Predecessor,
    Waiting,
    Worker(Id),
}

impl<'a> Guardian<'a> {
    fn new(config: &'a Config) -> Guardian<'a> {
        let counts = Counts::default();
        let (machine, actions) = Machine::start(clock::now());
        let mut guardian = Guardian {
            config,
            machine,
            pending: VecDeque::new(),
            workers: BTreeMap::new(),
            sockets: Sockets::default(),
            host: Host::new(config.node.clone(), config.keep, counts.clone()),
            counts,
            relay: None,
            relays: Vec::new(),
            unrelayed: Vec::new(),
            caches: Vec::new(),
            totals: None,
            lameduck_ms: 0,
            refusal: String::new(),
            succession: Succession::default(),
            neighbour: Neighbour::default(),
            announced: false,
            outcome: None,
        };
        actions.into_iter().for_each(|action| guardian.perform(action));
        guardian
    }

    fn serve(mut self, signals: &mut Signals) -> io::Result<Outcome> {
        loop {
            let read = clock::now();
            while let Some(event) = self.pending.pop_front() {
                // What was said while one event was dealt with has not been read yet, and is no silence.
                let now = if event == Event::Tick { read } else { clock::now() };
                let actions = self.machine.on(event, now);
                actions.into_iter().for_each(|action| self.perform(action));
            }
            if let Some(outcome) = self.outcome.take() {
                return Ok(outcome);
            }
            self.show_counts();
            for source in self.wait(signals)? {
                self.read(source, signals);
            }
            // After what was read: whoever spoke meanwhile was not silent.
            self.look_after_the_silent();
            self.look_for_the_neighbour();
            self.pending.push_back(Event::Tick);
        }
    }

    /// Tells a worker that has too much to do from one that does nothing.
    fn look_after_the_silent(&mut self) {
        let (State::Serving { worker: id, heard, .. } | State::Replacing { old: id, heard, .. }) =
            self.machine.state()
        else {
            return;
        };
        let silent = clock::now().since(heard) > 2 * PULSE_MS;
        if silent && self.workers.get(&id).is_some_and(Worker::is_busy) {
            self.pending.push_back(Event::Busy(id));
        }
    }

    fn wait(&self, signals: &Signals) -> io::Result<Vec<Source>> {
        let mut sources = Vec::new();
        let mut polled = Vec::new();
        let mut watch = |source, fd| {
            sources.push(source);
            polled.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        };
        signals.fds().for_each(|fd| watch(Source::Signals, fd));
        let Succession { door, successor, predecessor, waiting, .. } = &self.succession;
        // One that is gone makes room for the next.
        successor.iter().for_each(|channel| watch(Source::Successor, channel.as_fd()));
        door.iter().for_each(|door| watch(Source::Door, door.as_fd()));
        predecessor.iter().for_each(|channel| watch(Source::Predecessor, channel.as_fd()));
        waiting.iter().for_each(|channel| watch(Source::Waiting, channel.as_fd()));
        self.workers.iter().for_each(|(id, worker)| watch(Source::Worker(*id), worker.channel.as_fd()));
        let timeout = self.machine.deadline().map(|deadline| {
            let left = std::time::Duration::from_millis(deadline.since(clock::now()) + 1);
            Timespec::try_from(left).unwrap_or_default()
        });
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = polled.iter().map(|fd| !fd.revents().is_empty());
        Ok(sources.into_iter().zip(ready).filter_map(|(source, ready)| ready.then_some(source)).collect())
    }

    fn read(&mut self, source: Source, signals: &mut Signals) {
        match source {
            Source::Signals => signals.take().into_iter().for_each(|signal| self.obey(signal)),
            Source::Door => self.admit(),
            Source::Successor => self.hear_successor(),
            Source::Predecessor => self.hear_predecessor(),
            // Whatever it says, it has no part in this; mostly it is gone.
            Source::Waiting => self
                .succession
                .waiting
                .retain(|channel| matches!(channel.try_receive(), Ok(_) | Err(ReceiveError::Empty))),
            Source::Worker(id) => self.hear_worker(id),
        }
    }

    fn obey(&mut self, signal: Signal) {
        match signal {
            Signal::Terminate => {
                // A successor that is on its way up is worth waiting for.
                let patience_ms = if self.succession.successor.is_some() { SUCCESSION_MS } else { 0 };
                let lameduck_ms = self.lameduck_ms.max(patience_ms);
                if lameduck_ms > 0 {
                    tracing::info!("going on for {lameduck_ms} ms (lameduck)");
                }
                self.pending.push_back(Event::Terminate { lameduck_ms });
            }
            Signal::Quit => self.pending.push_back(Event::Quit),
            Signal::Reload => {
                if let State::Serving { worker, .. } = self.machine.state() {
                    self.tell(worker, &Message::Look);
                }
            }
        }
    }

    fn hear_worker(&mut self, id: Id) {
        for _ in 0..MESSAGES {
            let Some(worker) = self.workers.get_mut(&id) else { return };
            let event = match worker.channel.try_receive() {
                Ok(Message::Pulse) => Event::Pulse(id),
                Ok(Message::Reload) => Event::Reload(id),
                Ok(Message::Quiet { totals }) => {
                    self.totals = totals;
                    Event::Quiet(id)
                }
                // Only before it stands: until then it has read no packet.
                Ok(Message::Want { needed, optional }) if worker.standing.is_none() => {
                    self.provide(id, &needed, &optional);
                    continue;
                }
                Ok(Message::Standing(standing)) if worker.standing.is_none() => {
                    worker.standing = Some(standing);
                    Event::Standing(id)
                }
                Err(ReceiveError::Empty) => return,
                Err(ReceiveError::Closed) => return self.bury(id),
                Ok(message) => {
                    tracing::error!("worker {} has no business to say {message:?}", worker.pid());
                    return self.bury(id);
                }
                Err(error) => {
                    tracing::error!("worker {}: {error}", worker.pid());
                    return self.bury(id);
                }
            };
            self.pending.push_back(event);
        }
    }

    fn bury(&mut self, id: Id) {
        let Some(worker) = self.workers.remove(&id) else { return };
        let pid = worker.pid();
        let status = worker.bury();
        // The first one says itself why it cannot begin.
        let explained = matches!(self.machine.state(), State::Starting { .. })
            && status.is_some_and(|s| s.code().is_some());
        if let Some(status) = status.filter(|status| !status.success() && !explained) {
            tracing::error!("worker {pid} ended: {status}");
        }
        self.forget_left();
        let code = status.and_then(|status| status.code());
        self.pending.push_back(Event::Ended(id, code));
    }

    fn tell(&self, id: Id, message: &Message) {
        if let Some(worker) = self.workers.get(&id) {
            worker.tell(message);
        }
    }

    /// Has the worker show what was counted here.
    fn show_counts(&self) {
        if let State::Serving { worker, .. } = self.machine.state()
            && self.counts.take_changed()
        {
            self.tell(worker, &Message::Counts(self.counts.all()));
        }
    }

    /// Gives a worker the sockets it wants, those that there are and those that can be had.
    fn provide(&mut self, id: Id, needed: &[Listen], optional: &[Listen]) {
        if matches!(self.machine.state(), State::Starting { .. }) && !self.succession.knocked {
            self.succession.knocked = true;
            self.succeed(needed);
            if self.outcome.is_some() {
                return;
            }
            self.host.ensure_link();
        }
        if let Err(errors) = self.sockets.bind(needed) {
            let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
            self.refusal = lines.join("; ");
            if matches!(self.machine.state(), State::Starting { .. }) {
                lines.iter().for_each(|line| eprintln!("doorstep: {line}"));
            }
            return self.tell(id, &Message::Refused(self.refusal.clone()));
        }
        let mut listens = needed.to_vec();
        self.neighbour.missed.clear();
        for &listen in optional {
            match self.sockets.bind(&[listen]) {
                Ok(()) => listens.push(listen),
                Err(errors) => {
                    errors.iter().for_each(|error| tracing::error!("-metrics-listen-address: {error}"));
                    self.neighbour.missed.push(listen);
                }
            }
        }
        let beside =
            self.succession.predecessor.is_some() || matches!(self.machine.state(), State::Replacing { .. });
        let given = self.sockets.share(&listens).and_then(|sockets| {
            let caches = message::share(&self.caches)?;
            Ok(Message::Sockets { sockets, beside, caches })
        });
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.listens = listens;
        match given {
            Ok(message) => worker.tell(&message),
            Err(error) => worker.tell(&Message::Refused(format!("cannot share the sockets: {error}"))),
        }
    }

    /// Those of the local addresses that are among `listens`, at the rules' port.
    fn served(&self, listens: &[Listen]) -> Vec<IpAddr> {
        let serves = |ip: IpAddr, listen: &Listen| {
            let everywhere = listen.address.ip().is_unspecified() && listen.address.is_ipv4() == ip.is_ipv4();
            let port = listen.address.port() == self.config.node.dns_port;
            listen.role == Role::DnsUdp && port && (everywhere || listen.address.ip() == ip)
        };
        let local = self.config.node.local_ips.iter().copied();
        local.filter(|ip| listens.iter().any(|listen| serves(*ip, listen))).collect()
    }
}
