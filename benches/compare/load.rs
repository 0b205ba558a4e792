//! The load client: one thread, many sockets, as fast as the server answers or at a steady rate.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use crate::datagrams::Datagrams;
use crate::questions::Questions;

/// What to send.
#[derive(Clone, Copy)]
pub struct Load {
    pub server: SocketAddr,
    pub pace: Pace,
    /// Sockets, each with a port of its own.
    pub sockets: usize,
    /// Most queries without an answer, all sockets together.
    pub window: usize,
    pub duration: Duration,
    /// Most queries to send.
    pub count: u64,
}

/// How fast to send.
#[derive(Clone, Copy, PartialEq)]
pub enum Pace {
    /// The next query as soon as an answer makes room in the window.
    ClosedLoop,
    /// Queries a second.
    PerSecond(f64),
}

/// What came of it.
#[derive(Default)]
pub struct Outcome {
    pub sent: u64,
    pub answered: u64,
    /// Answers that say SERVFAIL or REFUSED.
    pub failed: u64,
    pub seconds: f64,
    /// Sorted, nanoseconds.
    latencies: Vec<u32>,
}

/// After this long an answer does not come any more.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Datagrams sent or received at a time on one socket.
const BURST: usize = 32;
/// How long to wait for an answer before looking at the clock again.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

impl Load {
    /// Sends what `questions` has to ask, and shows it the answers.
    pub fn run(&self, questions: &mut dyn Questions) -> io::Result<Outcome> {
        let mut client = Client::open(self)?;
        let mut outcome = Outcome::default();
        let mut swept = Duration::ZERO;
        loop {
            let now = client.start.elapsed();
            let sending = now < self.duration && outcome.sent < self.count;
            if !sending && (client.lanes.iter().all(|lane| lane.open == 0) || now > self.duration + PATIENCE)
            {
                break;
            }
            if sending {
                outcome.seconds = now.as_secs_f64();
                client.send(self, now, questions, &mut outcome)?;
            }
            client.receive(questions, &mut outcome)?;
            if now > swept + PATIENCE / 4 {
                swept = now;
                client.lanes.iter_mut().for_each(|lane| lane.give_up(now));
            }
        }
        outcome.latencies.sort_unstable();
        Ok(outcome)
    }
}

impl Outcome {
    /// The latency that `share` of the answers kept to, microseconds.
    pub fn percentile(&self, share: f64) -> f64 {
        let at = (self.latencies.len() as f64 * share) as usize;
        self.latencies.get(at).or(self.latencies.last()).map_or(f64::NAN, |ns| f64::from(*ns) / 1e3)
    }

    /// Share of the queries without an answer, or with one that says that there is none.
    pub fn lost(&self) -> f64 {
        (self.sent - self.answered + self.failed) as f64 / self.sent.max(1) as f64
    }
}

struct Client {
    start: Instant,
    lanes: Vec<Lane>,
    readable: OwnedFd,
    outgoing: Datagrams,
    incoming: Datagrams,
    next: usize,
}

/// One socket and its queries under way.
struct Lane {
    socket: UdpSocket,
    /// By the low bits of the message id.
    flights: Box<[Flight; FLIGHTS]>,
    order: VecDeque<u16>,
    id: u16,
    open: usize,
}

const FLIGHTS: usize = 1024;

#[derive(Clone, Copy, Default)]
struct Flight {
    /// When it was sent, nanoseconds since the start; 0: not under way.
    sent: u64,
    id: u16,
    tag: Option<u32>,
}

impl Client {
    fn open(load: &Load) -> io::Result<Client> {
        let readable = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut lanes = Vec::new();
        for index in 0..load.sockets {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            socket.connect(load.server)?;
            socket.set_nonblocking(true)?;
            let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 4 << 20);
            epoll::add(&readable, &socket, epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN)?;
            let flights = Box::new([Flight::default(); FLIGHTS]);
            lanes.push(Lane { socket, flights, order: VecDeque::new(), id: 0, open: 0 });
        }
        let (outgoing, incoming) = (Datagrams::connected(), Datagrams::connected());
        Ok(Client { start: Instant::now(), lanes, readable, outgoing, incoming, next: 0 })
    }

    /// Fills the windows, or sends what is due, from the socket whose turn it is on.
    fn send(
        &mut self,
        load: &Load,
        now: Duration,
        questions: &mut dyn Questions,
        outcome: &mut Outcome,
    ) -> io::Result<()> {
        let window = (load.window / load.sockets).max(1);
        for _ in 0..self.lanes.len() {
            let due = match load.pace {
                Pace::ClosedLoop => u64::MAX,
                Pace::PerSecond(rate) => ((now.as_secs_f64() * rate) as u64).saturating_sub(outcome.sent),
            };
            let due = due.min(load.count - outcome.sent);
            if due == 0 {
                break;
            }
            let lane = &mut self.lanes[self.next];
            self.next = (self.next + 1) % load.sockets;
            let burst = window.saturating_sub(lane.open).min(BURST).min(due as usize);
            if burst > 0 {
                outcome.sent += lane.send(&mut self.outgoing, burst, now, questions)?;
            }
        }
        Ok(())
    }

    fn receive(&mut self, questions: &mut dyn Questions, outcome: &mut Outcome) -> io::Result<()> {
        let mut events = Vec::with_capacity(64);
        epoll::wait(&self.readable, rustix::buffer::spare_capacity(&mut events), Some(&TICK))?;
        for event in events {
            let lane = &mut self.lanes[event.data.u64() as usize];
            loop {
                let received = match self.incoming.receive(&lane.socket) {
                    Ok(received) => received,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // A server that is gone refuses; what it owes is lost.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => break,
                    Err(error) => return Err(error),
                };
                let now = self.start.elapsed().as_nanos() as u64;
                for slot in 0..received {
                    lane.land(self.incoming.datagram(slot), now, questions, outcome);
                }
                if received < crate::datagrams::SLOTS {
                    break;
                }
            }
        }
        Ok(())
    }
}

impl Lane {
    fn send(
        &mut self,
        outgoing: &mut Datagrams,
        burst: usize,
        now: Duration,
        questions: &mut dyn Questions,
    ) -> io::Result<u64> {
        let now = (now.as_nanos() as u64).max(1);
        for slot in 0..burst {
            let room = outgoing.room(slot);
            let (len, tag) = questions.ask(room);
            let id = self.take_off(now, tag);
            room[..2].copy_from_slice(&id.to_be_bytes());
            outgoing.fill(slot, len);
        }
        let sent = match outgoing.send(&self.socket, 0, burst) {
            Ok(sent) => sent,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => 0,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        for _ in sent..burst {
            let id = self.order.pop_back().unwrap_or(0);
            self.flights[usize::from(id) % FLIGHTS].sent = 0;
            self.open -= 1;
        }
        Ok(sent as u64)
    }

    /// Finds a free flight; there is one, because a window is smaller than [`FLIGHTS`].
    fn take_off(&mut self, now: u64, tag: Option<u32>) -> u16 {
        loop {
            self.id = self.id.wrapping_add(1);
            let flight = &mut self.flights[usize::from(self.id) % FLIGHTS];
            if flight.sent == 0 {
                *flight = Flight { sent: now, id: self.id, tag };
                self.order.push_back(self.id);
                self.open += 1;
                return self.id;
            }
        }
    }

    fn land(&mut self, reply: &[u8], now: u64, questions: &mut dyn Questions, outcome: &mut Outcome) {
        let [high, low, _, flags, ..] = *reply else { return };
        let id = u16::from_be_bytes([high, low]);
        let flight = &mut self.flights[usize::from(id) % FLIGHTS];
        if flight.sent == 0 || flight.id != id {
            return;
        }
        outcome.answered += 1;
        outcome.failed += u64::from(matches!(flags & 15, 2 | 5));
        if let Some(tag) = flight.tag {
            outcome.latencies.push(u32::try_from(now - flight.sent).unwrap_or(u32::MAX));
            questions.answered(tag, reply);
        }
        flight.sent = 0;
        self.open -= 1;
    }

    /// Forgets those that waited too long.
    fn give_up(&mut self, now: Duration) {
        let latest = now.saturating_sub(PATIENCE).as_nanos() as u64;
        while let Some(id) = self.order.front() {
            let flight = &mut self.flights[usize::from(*id) % FLIGHTS];
            if flight.id == *id && flight.sent != 0 {
                if flight.sent > latest {
                    break;
                }
                flight.sent = 0;
                self.open -= 1;
            }
            self.order.pop_front();
        }
    }
}
