//! Pairs of queries, A and AAAA at once, and the wait of a stub resolver for their answers.
//!
//! A resolver that asks from two threads, or two pods whose queries meet, is what races in the kernel
//! (`nf_conntrack_core.c`, `__nf_conntrack_confirm`): both packets must reach conntrack before either is
//! confirmed there. So the sockets are made beforehand, and two threads on two processors send at once.

mod question;
mod senders;
mod standalone;
mod tally;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{DemoError, Namespace};
pub use question::{Expected, Subject};
use question::{Judgement, Question};
use senders::Senders;
pub use standalone::{Standalone, Verdict, standalone};
pub use tally::Tally;

/// When a stub resolver asks again (resolv.conf(5), `timeout`).
const GIVE_UP: Duration = Duration::from_secs(5);
/// How long the repetition is waited for, longer than any answer of the laboratory takes.
const SECOND_WAIT: Duration = Duration::from_millis(2500);
/// How long the next pair waits for the answers to the one before; afterwards they are awaited beside.
const TURN: Duration = Duration::from_millis(20);
/// Sockets made at a time.
const BATCH: u64 = 128;
const LONGEST_ANSWER: usize = 1500;

/// Where the two queries of a pair come from.
#[derive(Debug, Clone, Copy)]
pub enum Origin<'a> {
    /// One socket of a pod, one thread, A before AAAA: glibc and musl.
    OneThread(&'a Namespace),
    /// One socket of a pod, two threads: runtimes that look up both families at once.
    TwoThreads(&'a Namespace),
    /// A socket in each of two pods, with the same source port: this one for the first pair, the next for
    /// the next.
    OnePort([&'a Namespace; 2], u16),
}

/// Pairs to send.
pub struct Pairs<'a> {
    /// From where.
    pub origin: Origin<'a>,
    /// To whom, in turn.
    pub servers: &'a [SocketAddr],
    /// How many.
    pub count: u64,
    /// Time from one to the next; zero: as soon as the one before is answered.
    pub pace: Duration,
    /// What the pair of a number asks for.
    pub subject: &'a dyn Fn(u64) -> Subject,
}

/// The threads that send, and the queries that have not been answered yet.
pub struct Race {
    senders: Senders,
    waiting: Vec<Waiting>,
    tallies: Vec<Tally>,
}

/// A socket with questions that are open.
struct Waiting {
    socket: Arc<UdpSocket>,
    questions: Vec<Question>,
    sent: Instant,
    repeated: bool,
    /// Whose tally.
    run: usize,
}

impl Race {
    /// Starts the threads.
    pub fn start() -> Result<Race, DemoError> {
        allow_sockets().map_err(DemoError::io("be allowed more sockets"))?;
        let senders = Senders::start().map_err(DemoError::io("start two threads"))?;
        Ok(Race { senders, waiting: Vec::new(), tallies: Vec::new() })
    }

    /// Whether this machine has the two processors that a race needs.
    pub fn has_two_processors(&self) -> bool {
        self.senders.race()
    }

    /// Sends pairs. Answers that take long are awaited later. `go_on` is asked before each pair.
    pub fn run(&mut self, pairs: &Pairs, go_on: &dyn Fn() -> Result<(), DemoError>) -> Result<(), DemoError> {
        self.tallies.push(Tally { queries: 2 * pairs.count, ..Tally::default() });
        let start = Instant::now();
        for first in (0..pairs.count).step_by(BATCH as usize) {
            let numbers = first..pairs.count.min(first + BATCH);
            let sockets = pairs.sockets(numbers.clone())?;
            for (number, sockets) in numbers.zip(sockets) {
                go_on()?;
                self.send(pairs, number, sockets).map_err(DemoError::io("send a pair of queries"))?;
                let now = start.elapsed();
                let next = pairs.pace.saturating_mul(number as u32 + 1);
                self.collect(next.saturating_sub(now)).map_err(DemoError::io("wait for answers"))?;
            }
        }
        Ok(())
    }

    /// Waits for what is open; the tallies of the runs, in order.
    pub fn finish(&mut self, go_on: &dyn Fn() -> Result<(), DemoError>) -> Result<Vec<Tally>, DemoError> {
        while !self.waiting.is_empty() {
            go_on()?;
            self.collect(Duration::from_millis(50)).map_err(DemoError::io("wait for answers"))?;
        }
        Ok(std::mem::take(&mut self.tallies))
    }

    fn send(&mut self, pairs: &Pairs, number: u64, sockets: [Arc<UdpSocket>; 2]) -> io::Result<()> {
        let [a, aaaa] = Question::pair(&(pairs.subject)(number))?;
        let [first, second] = sockets;
        let sent = match pairs.origin {
            Origin::OneThread(_) => {
                let now = Instant::now();
                send(&first, &a.packet)?;
                send(&second, &aaaa.packet)?;
                [now, now]
            }
            _ => {
                let shots = [(&first, &a), (&second, &aaaa)];
                self.senders
                    .send(shots.map(|(socket, question)| (Arc::clone(socket), question.packet.clone())))?
            }
        };
        let run = self.tallies.len() - 1;
        let waiting = |socket, questions, sent| Waiting { socket, questions, sent, repeated: false, run };
        let sockets = match pairs.origin {
            Origin::OnePort(..) => {
                vec![waiting(first, vec![a], sent[0]), waiting(second, vec![aaaa], sent[1])]
            }
            _ => vec![waiting(first, vec![a, aaaa], sent[0])],
        };
        self.waiting.extend(sockets);
        while pairs.pace.is_zero() && self.waiting.iter().any(|waiting| waiting.sent.elapsed() < TURN) {
            self.step(TURN)?;
        }
        Ok(())
    }

    /// Takes the answers that come within `time`, and repeats what is due.
    fn collect(&mut self, time: Duration) -> io::Result<()> {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if self.waiting.is_empty() {
                std::thread::sleep(left);
                return Ok(());
            }
            self.step(left)?;
            if Instant::now() >= end {
                return Ok(());
            }
        }
    }

    /// Takes what has come, or comes next within `time`.
    fn step(&mut self, time: Duration) -> io::Result<()> {
        for ready in self.readable(time)? {
            let waiting = &mut self.waiting[ready];
            waiting.receive(&mut self.tallies[waiting.run])?;
        }
        for waiting in &mut self.waiting {
            waiting.repeat_or_give_up(&mut self.tallies[waiting.run])?;
        }
        self.waiting.retain(|waiting| !waiting.questions.is_empty());
        Ok(())
    }

    /// The sockets that have something to read within `time`, or soon after.
    fn readable(&self, time: Duration) -> io::Result<Vec<usize>> {
        // Whoever is due to ask again is not held up for long.
        let time = time.min(Duration::from_millis(20));
        let mut polled: Vec<PollFd> =
            self.waiting.iter().map(|waiting| PollFd::new(&waiting.socket, PollFlags::IN)).collect();
        let time = Timespec::try_from(time).map_err(io::Error::other)?;
        match poll(&mut polled, Some(&time)) {
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            result => result?,
        };
        let ready = polled.iter().enumerate().filter(|(_, polled)| !polled.revents().is_empty());
        Ok(ready.map(|(position, _)| position).collect())
    }
}

impl Waiting {
    /// Takes one packet, if there is one.
    fn receive(&mut self, tally: &mut Tally) -> io::Result<()> {
        let mut packet = [0; LONGEST_ANSWER];
        let length = match self.socket.recv(&mut packet) {
            // ECONNREFUSED: an ICMP error about a query before. What was asked may still be answered.
            Err(error) if is_passing(&error) => return Ok(()),
            length => length?,
        };
        let after = self.sent.elapsed();
        let judged = |question: &Question| question.judge(&packet[..length]);
        let found = self.questions.iter().map(judged).enumerate().find(|(_, it)| *it != Judgement::NotMine);
        if let Some((position, judgement)) = found {
            self.questions.swap_remove(position);
            match judgement {
                Judgement::Wrong => {
                    tally.wrong += 1;
                    // After a repetition it has been counted.
                    tally.lost += u64::from(!self.repeated);
                }
                _ => tally.answered(after),
            }
        }
        Ok(())
    }

    fn repeat_or_give_up(&mut self, tally: &mut Tally) -> io::Result<()> {
        let elapsed = self.sent.elapsed();
        if !self.repeated && elapsed >= GIVE_UP {
            self.repeated = true;
            tally.lost += self.questions.len() as u64;
            self.questions.iter().try_for_each(|question| send(&self.socket, &question.packet))?;
        } else if elapsed >= GIVE_UP + SECOND_WAIT {
            self.questions.drain(..).for_each(|_| tally.never());
        }
        Ok(())
    }
}

impl Pairs<'_> {
    /// The sockets of the pairs with these numbers.
    fn sockets(&self, numbers: std::ops::Range<u64>) -> Result<Vec<[Arc<UdpSocket>; 2]>, DemoError> {
        let open = |namespace: &Namespace, first_port: Option<u16>| {
            let sockets = numbers.clone().map(|number| {
                let server = self.servers[number as usize % self.servers.len()];
                let port = first_port.map_or(0, |port| port.wrapping_add(number as u16));
                connected(server, port).map(Arc::new)
            });
            namespace.run(|| sockets.collect::<io::Result<Vec<_>>>())?.map_err(DemoError::io("open sockets"))
        };
        Ok(match self.origin {
            Origin::OneThread(pod) | Origin::TwoThreads(pod) => {
                open(pod, None)?.into_iter().map(|socket| [Arc::clone(&socket), socket]).collect()
            }
            Origin::OnePort([pod, other], port) => {
                open(pod, Some(port))?.into_iter().zip(open(other, Some(port))?).map(<[_; 2]>::from).collect()
            }
        })
    }
}

/// Connected, as resolvers do it, so that only the server's answers are taken.
fn connected(server: SocketAddr, port: u16) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
    socket.connect(server)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// As many as the system lets a process have: what is lost keeps its socket for seconds.
fn allow_sockets() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(())
}

fn send(socket: &UdpSocket, packet: &[u8]) -> io::Result<()> {
    match socket.send(packet) {
        Err(error) if is_passing(&error) => Ok(()),
        sent => sent.map(drop),
    }
}

fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, Interrupted, TimedOut, WouldBlock};
    [ConnectionRefused, Interrupted, TimedOut, WouldBlock].contains(&error.kind())
}
