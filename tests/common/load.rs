//! A steady load of queries over UDP, each for a name of its own.

#![allow(dead_code, reason = "each suite uses its own part")]

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::client::bound;
use super::message::{Ask, ask};

/// A stub resolver stops listening after this.
pub const GIVE_UP: Duration = Duration::from_secs(5);
/// Time between two bursts of the sender.
const TICK: Duration = Duration::from_millis(1);
/// Answers that fit into the client's socket, roughly.
const RECEIVE_BUFFER: usize = 4 << 20;

/// What is to be sent.
pub struct Load {
    pub server: SocketAddr,
    /// The client's address.
    pub from: IpAddr,
    /// Queries per second.
    pub rate: u32,
    pub lasting: Duration,
    /// Waits for answers this long after the last query.
    pub patience: Duration,
    /// The query with this number; its id is set by the load.
    pub query: fn(usize) -> Ask,
}

/// What came of it.
#[derive(Default)]
pub struct Outcome {
    pub sent: usize,
    /// Queries with an answer, by response code. NOERROR without a record is under [`EMPTY`].
    pub rcodes: BTreeMap<u16, usize>,
    /// From sending to answer, ascending; queries without an answer left out.
    pub latencies: Vec<Duration>,
    /// The longest time for which the machine kept the sender from its work. Whatever it kept from
    /// theirs meanwhile says nothing about them.
    pub held_up: Duration,
}

/// Not a response code: NOERROR without a record.
pub const EMPTY: u16 = u16::MAX;

impl Load {
    /// A load of queries for `NUMBER.load.test`.
    pub fn new(server: SocketAddr, from: IpAddr, rate: u32, lasting: Duration) -> Load {
        let query = |number| ask(&format!("{number}.load.test"));
        Load { server, from, rate, lasting, patience: GIVE_UP, query }
    }

    /// Sends it and waits for the answers. Calls `at` with the time since the start about each
    /// millisecond while it sends.
    pub fn run(&self, mut at: impl FnMut(Duration)) -> Outcome {
        let socket = bound(self.from, self.server);
        SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER).unwrap();
        let total = usize::try_from(u128::from(self.rate) * self.lasting.as_millis() / 1000).unwrap();
        assert!(total <= 1 << 16, "more queries than ids");
        let started = Instant::now();
        let finished = AtomicBool::new(false);
        thread::scope(|scope| {
            let receiver = scope.spawn(|| self.receive(&socket, started, total, &finished));
            let (sent, held_up) = self.send(&socket, started, total, &mut at);
            finished.store(true, Relaxed);
            Outcome { held_up, ..receiver.join().unwrap().outcome(&sent) }
        })
    }

    /// Sends as the clock says, in bursts; gives the time of each query, and the longest delay.
    fn send(
        &self,
        socket: &UdpSocket,
        started: Instant,
        total: usize,
        at: &mut impl FnMut(Duration),
    ) -> (Vec<Duration>, Duration) {
        let (mut sent, mut held_up) = (Vec::with_capacity(total), Duration::ZERO);
        while sent.len() < total {
            let due = started.elapsed().as_micros() * u128::from(self.rate) / 1_000_000;
            for number in sent.len()..total.min(usize::try_from(due).unwrap() + 1) {
                let id = u16::try_from(number).unwrap();
                sent.push(started.elapsed());
                // A full socket buffer is a query that is lost; so is one to a port just closed.
                let _ = socket.send(&(self.query)(number).id(id).build());
            }
            at(started.elapsed());
            let before = Instant::now();
            thread::sleep(TICK);
            held_up = held_up.max(before.elapsed().saturating_sub(TICK));
        }
        (sent, held_up)
    }

    fn receive(&self, socket: &UdpSocket, started: Instant, total: usize, finished: &AtomicBool) -> Received {
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let mut received = Received(vec![None; total]);
        let (mut open, mut end) = (total, None);
        let mut buffer = vec![0; 65535];
        while open > 0 && end.is_none_or(|end| Instant::now() < end) {
            match socket.recv(&mut buffer) {
                Ok(length) => {
                    received.take(&buffer[..length], started.elapsed());
                    open -= 1;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
            if end.is_none() && finished.load(Relaxed) {
                end = Some(Instant::now() + self.patience);
            }
        }
        received
    }
}

/// When each answer came, and with which code.
struct Received(Vec<Option<(Duration, u16)>>);

impl Received {
    fn take(&mut self, answer: &[u8], at: Duration) {
        assert!(answer.len() >= 12 && answer[2] & 0x80 != 0, "no answer: {answer:02x?}");
        let id = usize::from(u16::from_be_bytes([answer[0], answer[1]]));
        let code = match answer[3] & 15 {
            0 if answer[7] == 0 => EMPTY,
            rcode => u16::from(rcode),
        };
        let slot = self.0.get_mut(id).expect("the id of a query");
        assert!(slot.is_none(), "two answers to one query");
        *slot = Some((at, code));
    }

    fn outcome(self, sent: &[Duration]) -> Outcome {
        let mut outcome = Outcome { sent: sent.len(), ..Outcome::default() };
        for (&sent, (at, code)) in sent.iter().zip(self.0).filter_map(|(sent, got)| Some((sent, got?))) {
            *outcome.rcodes.entry(code).or_default() += 1;
            outcome.latencies.push(at.saturating_sub(sent));
        }
        outcome.latencies.sort_unstable();
        outcome
    }
}

impl Outcome {
    pub fn answered(&self) -> usize {
        self.latencies.len()
    }

    /// Queries without an answer.
    pub fn lost(&self) -> usize {
        self.sent - self.answered()
    }

    /// Queries with this response code.
    pub fn with(&self, rcode: u16) -> usize {
        self.rcodes.get(&rcode).copied().unwrap_or_default()
    }

    /// The latency that so many in a thousand do not exceed; nothing if there was no answer.
    pub fn quantile(&self, thousandths: usize) -> Duration {
        let rank = (self.latencies.len() * thousandths).div_ceil(1000).max(1);
        self.latencies.get(rank - 1).copied().unwrap_or_default()
    }
}
