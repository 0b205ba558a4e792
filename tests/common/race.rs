//! Pairs of queries that leave at the same instant from two CPUs, and servers to send them to.

use std::collections::{BTreeMap, HashMap};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};

const A: u16 = 1;
const AAAA: u16 = 28;

/// Two threads on two CPUs that send at the same instant: the caller's and one of its own.
pub struct Racers {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// What the other thread is to send, odd while it is there to be sent.
    turn: AtomicU64,
    hot: AtomicU64,
    gone: AtomicU64,
    sent: AtomicU64,
    shot: std::sync::Mutex<Option<(UdpSocket, Vec<u8>)>>,
}

impl Racers {
    /// Ties the calling thread to the first CPU and the other to the second.
    pub fn start() -> Racers {
        let shared = Arc::new(Shared::default());
        let other = shared.clone();
        let thread = std::thread::spawn(move || other.run());
        tie(0);
        Racers { shared, thread: Some(thread) }
    }

    /// Sends one datagram from each of two connected sockets, which may be one.
    pub fn send(&self, first: (&UdpSocket, &[u8]), second: (&UdpSocket, &[u8])) {
        let shared = &self.shared;
        *shared.shot.lock().unwrap() = Some((second.0.try_clone().unwrap(), second.1.to_vec()));
        let turn = shared.turn.fetch_add(1, SeqCst) + 1;
        self.thread.as_ref().unwrap().thread().unpark();
        while shared.hot.load(SeqCst) != turn {
            std::hint::spin_loop();
        }
        shared.gone.store(turn, SeqCst);
        // What cannot be sent is an answer that does not come.
        let _ = first.0.send(first.1);
        while shared.sent.load(SeqCst) != turn {
            std::hint::spin_loop();
        }
    }
}

impl Shared {
    fn run(&self) {
        tie(1);
        let mut turn = 0;
        loop {
            while self.turn.load(SeqCst) == turn {
                std::thread::park();
            }
            turn += 1;
            let Some((socket, datagram)) = self.shot.lock().unwrap().take() else { return };
            self.hot.store(turn, SeqCst);
            while self.gone.load(SeqCst) != turn {
                std::hint::spin_loop();
            }
            let _ = socket.send(&datagram);
            self.sent.store(turn, SeqCst);
        }
    }
}

impl Drop for Racers {
    fn drop(&mut self) {
        // A turn with nothing to send is the end.
        self.shared.turn.fetch_add(1, SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn tie(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).expect("two CPUs");
}

/// Pairs to run.
#[derive(Debug, Clone)]
pub struct Pairs {
    /// How many.
    pub count: usize,
    /// So many are under way at once.
    pub at_once: usize,
    /// Names are `NAMEn.race.`, n from 0 to `names`, then again.
    pub name: String,
    pub names: usize,
    /// How long an answer may take.
    pub patience: Duration,
}

impl Pairs {
    pub fn new(count: usize) -> Pairs {
        let patience = Duration::from_secs(2);
        Pairs { count, at_once: 1, name: "fast".into(), names: usize::MAX, patience }
    }

    /// Names whose answers the server holds back so long, all pairs at once; they may take `more` besides.
    pub fn slow(count: usize, milliseconds: u64, more: Duration) -> Pairs {
        let patience = Duration::from_millis(milliseconds) + more;
        Pairs { at_once: count, name: format!("slow-{milliseconds}-"), patience, ..Pairs::new(count) }
    }
}

/// What became of pairs.
#[derive(Debug, Default, Clone)]
pub struct Outcome {
    pub queries: usize,
    /// Queries without a right answer in time.
    pub lost: usize,
    /// Pairs with one or two of these.
    pub pairs_hit: usize,
    /// Answers that are wrong: code, question or record.
    pub wrong: usize,
    /// Answers by the server that gave them.
    pub servers: BTreeMap<u8, usize>,
    /// Times of A answers and of AAAA answers, sorted.
    pub times: [Vec<Duration>; 2],
}

impl Outcome {
    /// A time that so many hundredths of the answers of this kind (0: A, 1: AAAA) did not exceed.
    pub fn percentile(&self, kind: usize, hundredths: usize) -> Duration {
        let times = &self.times[kind];
        times
            .get((times.len() * hundredths / 100).min(times.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }

    /// One line of `key=value`.
    pub fn line(&self) -> String {
        let servers: Vec<String> = self.servers.iter().map(|(id, count)| format!("{id}:{count}")).collect();
        let ms = |kind, hundredths| self.percentile(kind, hundredths).as_secs_f64() * 1e3;
        format!(
            "queries={} lost={} pairs_hit={} wrong={} servers={} a_ms={:.2}/{:.2} aaaa_ms={:.2}/{:.2}",
            self.queries,
            self.lost,
            self.pairs_hit,
            self.wrong,
            servers.join(","),
            ms(0, 50),
            ms(0, 99),
            ms(1, 50),
            ms(1, 99),
        )
    }
}

/// One pair under way.
struct Flight {
    socket: UdpSocket,
    queries: [Vec<u8>; 2],
    sent: Instant,
    answered: [bool; 2],
}

/// Runs `pairs` against `server`, from the caller's namespace.
pub fn run(pairs: &Pairs, server: IpAddr) -> Outcome {
    let racers = Racers::start();
    let mut outcome = Outcome::default();
    let numbers: Vec<usize> = (0..pairs.count).collect();
    for batch in numbers.chunks(pairs.at_once.max(1)) {
        let flights = batch.iter().map(|number| {
            let socket = UdpSocket::bind((super::netns::unspecified(server), 0)).unwrap();
            socket.connect((server, 53)).unwrap();
            let name = format!("{}{}", pairs.name, number % pairs.names);
            let id = u16::try_from(number & 0x7fff).unwrap();
            let queries = [query(id, &name, A), query(id | 0x8000, &name, AAAA)];
            let sent = Instant::now();
            racers.send((&socket, &queries[0]), (&socket, &queries[1]));
            Flight { socket, queries, sent, answered: [false; 2] }
        });
        collect(flights.collect(), pairs.patience, &mut outcome);
    }
    outcome.times.iter_mut().for_each(|times| times.sort());
    outcome
}

fn collect(mut flights: Vec<Flight>, patience: Duration, outcome: &mut Outcome) {
    let alone = flights.len() == 1;
    for flight in &flights {
        flight.socket.set_nonblocking(!alone).unwrap();
        flight.socket.set_read_timeout(Some(patience)).unwrap();
    }
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline && flights.iter().any(|flight| flight.answered != [true; 2]) {
        for flight in flights.iter_mut().filter(|flight| flight.answered != [true; 2]) {
            let mut buffer = [0; 1500];
            // A refusal by ICMP is how a reply that was not rewritten shows; the answer is lost.
            if let Ok(length) = flight.socket.recv(&mut buffer) {
                land(flight, &buffer[..length], outcome);
            }
        }
        if !alone {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    for flight in &flights {
        let lost = flight.answered.iter().filter(|answered| !**answered).count();
        outcome.queries += 2;
        outcome.lost += lost;
        outcome.pairs_hit += usize::from(lost > 0);
    }
}

fn land(flight: &mut Flight, answer: &[u8], outcome: &mut Outcome) {
    let kind = flight.queries.iter().position(|query| answer.len() > 12 && query[..2] == answer[..2]);
    let Some(kind) = kind else {
        outcome.wrong += 1;
        return;
    };
    let query = &flight.queries[kind];
    let question = answer.get(12..query.len()) == Some(&query[12..]);
    // NOERROR, one answer, and its last octet, which names the server.
    if answer[3] & 0x0f != 0 || answer[7] != 1 || !question || flight.answered[kind] {
        outcome.wrong += 1;
        return;
    }
    flight.answered[kind] = true;
    outcome.times[kind].push(flight.sent.elapsed());
    *outcome.servers.entry(answer[answer.len() - 1]).or_default() += 1;
}

fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut octets = id.to_be_bytes().to_vec();
    octets.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    octets.push(u8::try_from(name.len()).unwrap());
    octets.extend(name.as_bytes());
    octets.extend(b"\x04race\0");
    octets.extend(kind.to_be_bytes());
    octets.extend([0, 1]);
    octets
}

/// Starts a server over UDP and TCP on port 53 of `address`: every name exists, and the last octet of
/// its addresses is `id`. `slow-MS-…` is answered late. Ends with the process.
pub fn serve(id: u8, address: IpAddr) {
    let socket = UdpSocket::bind((address, 53)).unwrap();
    let listener = TcpListener::bind((address, 53)).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        loop {
            let Ok((length, peer)) = socket.recv_from(&mut buffer) else { continue };
            if length < 17 {
                // No query but a knock.
                let _ = socket.send_to(&buffer[..length], peer);
                continue;
            }
            answer_over_udp(&socket, peer, id, buffer[..length].to_vec());
        }
    });
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer_over_tcp(stream, id));
        }
    });
}

fn answer_over_udp(socket: &UdpSocket, peer: SocketAddr, id: u8, query: Vec<u8>) {
    match delay(&query) {
        Duration::ZERO => drop(socket.send_to(&answer(id, &query), peer)),
        delay => {
            let socket = socket.try_clone().unwrap();
            std::thread::spawn(move || {
                std::thread::sleep(delay);
                socket.send_to(&answer(id, &query), peer)
            });
        }
    }
}

fn answer_over_tcp(mut stream: TcpStream, id: u8) {
    let mut length = [0; 2];
    while stream.read_exact(&mut length).is_ok() {
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        if stream.read_exact(&mut query).is_err() {
            return;
        }
        let mut writer = stream.try_clone().unwrap();
        // Out of order, as they get ready; a frame is one write.
        let late = move || {
            std::thread::sleep(delay(&query));
            let answer = answer(id, &query);
            let framed = [&u16::try_from(answer.len()).unwrap().to_be_bytes()[..], &answer].concat();
            let _ = writer.write_all(&framed);
        };
        std::thread::spawn(late);
    }
}

/// `slow-1200-7` waits 1200 ms.
fn delay(query: &[u8]) -> Duration {
    let label = query.get(13..).unwrap_or_default();
    let text =
        String::from_utf8_lossy(label.get(..usize::from(query[12]).min(label.len())).unwrap_or_default());
    let wait = text.strip_prefix("slow-").and_then(|rest| rest.split('-').next()?.parse().ok());
    Duration::from_millis(wait.unwrap_or(0))
}

/// The query with one record: an address whose last octet is `id`.
fn answer(id: u8, query: &[u8]) -> Vec<u8> {
    let name = query[12..].iter().position(|octet| *octet == 0).map_or(query.len(), |at| 12 + at);
    // Without the OPT that a forwarder adds.
    let mut octets = query[..(name + 5).min(query.len())].to_vec();
    octets[2..12].copy_from_slice(&[0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    let kind = octets[octets.len() - 3];
    octets.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 30]);
    match u16::from(kind) {
        AAAA => octets.extend([0, 16, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, id]),
        _ => octets.extend([0, 4, 10, 255, 0, id]),
    }
    octets
}

/// Sums of `/proc/net/stat/nf_conntrack` over all CPUs, in the calling thread's namespace.
pub fn counters() -> HashMap<String, u64> {
    let text = std::fs::read_to_string("/proc/thread-self/net/stat/nf_conntrack").unwrap_or_default();
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    let mut sums = HashMap::new();
    for line in lines {
        for (name, value) in names.iter().zip(line.split_whitespace()) {
            *sums.entry((*name).to_owned()).or_default() += u64::from_str_radix(value, 16).unwrap_or(0);
        }
    }
    sums
}

/// Pairs of queries from two sockets at once, which are to have the same port: see [`run`] for the rest.
/// Returns how many of them were not answered within `patience`.
pub fn lost_of_two(racers: &Racers, sockets: [&UdpSocket; 2], number: u16, patience: Duration) -> usize {
    let queries = [query(number, "snat", A), query(number | 0x8000, "snat", AAAA)];
    racers.send((sockets[0], &queries[0]), (sockets[1], &queries[1]));
    let answered = |(socket, query): (&UdpSocket, &Vec<u8>)| {
        socket.set_read_timeout(Some(patience)).unwrap();
        let deadline = Instant::now() + patience;
        let mut buffer = [0; 1500];
        while Instant::now() < deadline {
            match socket.recv(&mut buffer) {
                Ok(length) if length > 12 && buffer[..2] == query[..2] => return true,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return false,
                _ => {}
            }
        }
        false
    };
    sockets.into_iter().zip(&queries).filter(|pair| !answered(*pair)).count()
}
