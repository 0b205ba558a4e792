//! A steady load over UDP and TCP that keeps account of every query.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::SockRef;

use doorstep::demo::Namespace;

use super::Scale;

/// A stub resolver stops listening after this.
const GIVE_UP: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(1);
const BUFFER: usize = 4 << 20;
/// Names that are hits once each was asked for.
pub const WARM: usize = 100;
const QUICK: &str = "slow-0";
/// Queries a second over TCP, one after another on one connection.
const TCP_PAUSE: Duration = Duration::from_millis(5);
/// Of one socket: its 65536 ids are then not used again within [`GIVE_UP`].
const MOST_A_SOCKET: u32 = 5_000;

/// Of one kind of query.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    pub sent: usize,
    pub answered: usize,
    /// Of those sent, for a name never asked for before.
    pub unique: usize,
    /// With a response code other than NOERROR, or no address.
    pub wrong: usize,
    /// The longest that an answer took.
    pub longest: Duration,
    /// Connections that had to be opened again.
    pub reopened: usize,
}

#[derive(Debug, Default, Clone)]
pub struct Outcome {
    pub udp: Tally,
    pub tcp: Tally,
}

/// A running load.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    udp: Vec<JoinHandle<Tally>>,
    tcp: JoinHandle<Tally>,
}

impl Tally {
    pub fn lost(&self) -> usize {
        self.sent - self.answered
    }

    fn take(&mut self, answer: &[u8], waited: Duration) {
        self.answered += 1;
        self.longest = self.longest.max(waited);
        if answer[3] & 15 != 0 || answer[7] == 0 {
            self.wrong += 1;
        }
    }

    fn add(mut self, other: Tally) -> Tally {
        self.sent += other.sent;
        self.answered += other.answered;
        self.unique += other.unique;
        self.wrong += other.wrong;
        self.longest = self.longest.max(other.longest);
        self.reopened += other.reopened;
        self
    }
}

impl Outcome {
    pub fn wrong(&self) -> usize {
        self.udp.wrong + self.tcp.wrong
    }
}

impl Traffic {
    /// Begins, from `pod` to `server`.
    pub fn start(pod: &Namespace, server: SocketAddr, scale: Scale) -> Traffic {
        let stop = Arc::new(AtomicBool::new(false));
        let hits = scale.hits.div_ceil(MOST_A_SOCKET);
        let rates = (0..hits).map(|_| (scale.hits / hits, QUICK, false));
        let rates = rates.chain([(scale.misses, scale.miss, true)]);
        let udp = rates.enumerate().map(|(at, (rate, first, unique))| {
            let socket = pod.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
            socket.connect(server).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER);
            let _ = SockRef::from(&socket).set_send_buffer_size(BUFFER);
            let stop = stop.clone();
            thread::spawn(move || Asker::new(socket, first, at, unique).run(rate, &stop))
        });
        let udp = udp.collect();
        let connections = Connections::new(pod, server);
        let stopped = stop.clone();
        let tcp = thread::spawn(move || connections.run(&stopped));
        Traffic { stop, udp, tcp }
    }

    /// So many unique names at once over UDP, whose answers take 300 ms.
    pub fn slow(pod: &Namespace, server: SocketAddr, count: u32) -> Traffic {
        let stop = Arc::new(AtomicBool::new(true));
        let socket = pod.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
        socket.connect(server).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut asker = Asker::new(socket, "slow-300", 0, true);
        (0..count).for_each(|_| asker.ask());
        let stopped = stop.clone();
        let udp = vec![thread::spawn(move || asker.run(0, &stopped))];
        Traffic { stop, udp, tcp: thread::spawn(Tally::default) }
    }

    /// Asks no more, and waits for the answers.
    pub fn stop(self) -> Outcome {
        self.stop.store(true, Relaxed);
        let udp = self.udp.into_iter().map(|thread| thread.join().unwrap());
        Outcome { udp: udp.fold(Tally::default(), Tally::add), tcp: self.tcp.join().unwrap() }
    }
}

/// `FIRST.LABEL.cluster.local`: an address, after as many milliseconds as the first label says.
fn query(id: u16, first: &str, label: &str) -> Vec<u8> {
    let mut octets = id.to_be_bytes().to_vec();
    octets.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in [first, label, "cluster", "local"] {
        octets.push(u8::try_from(label.len()).unwrap());
        octets.extend(label.as_bytes());
    }
    octets.extend([0, 0, 1, 0, 1]);
    octets
}

/// One UDP socket.
struct Asker {
    socket: UdpSocket,
    first: &'static str,
    /// Distinguishes its unique names from others'.
    at: usize,
    unique: bool,
    /// When each query went out, and whether it is still waited for.
    asked: Vec<(Instant, bool)>,
    tally: Tally,
}

impl Asker {
    fn new(socket: UdpSocket, first: &'static str, at: usize, unique: bool) -> Asker {
        Asker { socket, first, at, unique, asked: Vec::new(), tally: Tally::default() }
    }

    fn run(mut self, rate: u32, stop: &AtomicBool) -> Tally {
        let started = Instant::now();
        while !stop.load(Relaxed) {
            let due = started.elapsed().as_micros() * u128::from(rate) / 1_000_000;
            while (self.asked.len() as u128) < due {
                self.ask();
            }
            self.listen();
            thread::sleep(TICK);
        }
        let end = Instant::now() + GIVE_UP;
        while self.tally.lost() > 0 && Instant::now() < end {
            self.listen();
            thread::sleep(TICK);
        }
        self.tally
    }

    fn ask(&mut self) {
        let number = self.asked.len();
        let label = if self.unique {
            format!("u{}-{}-{number}", self.at, std::process::id())
        } else {
            format!("warm{}", number % WARM)
        };
        self.asked.push((Instant::now(), true));
        self.tally.sent += 1;
        self.tally.unique += usize::from(self.unique);
        // What cannot be sent is lost, and a port that is closed is told by the next call.
        let _ = self.socket.send(&query(number as u16, self.first, &label));
    }

    fn listen(&mut self) {
        let mut answer = [0; 1500];
        loop {
            let length = match self.socket.recv(&mut answer) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => continue,
            };
            assert!(length >= 12);
            let id = u16::from_be_bytes([answer[0], answer[1]]);
            let behind = (self.asked.len() - 1).wrapping_sub(usize::from(id)) & 0xffff;
            let Some((at, waits)) = self.asked.len().checked_sub(1 + behind).map(|at| &mut self.asked[at])
            else {
                panic!("an answer to nothing");
            };
            assert!(std::mem::replace(waits, false), "two answers to one query");
            self.tally.take(&answer, at.elapsed());
        }
    }
}

/// One TCP connection at a time.
struct Connections {
    pod: PodSockets,
    server: SocketAddr,
    tally: Tally,
}

/// Opens sockets in the pod's namespace.
struct PodSockets(std::sync::mpsc::Receiver<socket2::Socket>);

impl Connections {
    fn new(pod: &Namespace, server: SocketAddr) -> Connections {
        // A socket belongs to the namespace in which it was made, wherever it is connected.
        let (sockets, pool) = std::sync::mpsc::channel();
        pod.run(|| {
            for _ in 0..2_000 {
                let kind = socket2::Type::STREAM;
                sockets.send(socket2::Socket::new(socket2::Domain::IPV4, kind, None).unwrap()).unwrap();
            }
        })
        .unwrap();
        Connections { pod: PodSockets(pool), server, tally: Tally::default() }
    }

    fn open(&mut self) -> std::io::Result<TcpStream> {
        let socket = self.pod.0.recv().expect("a socket");
        socket.connect_timeout(&self.server.into(), Duration::from_secs(1))?;
        socket.set_read_timeout(Some(GIVE_UP))?;
        socket.set_tcp_nodelay(true)?;
        Ok(socket.into())
    }

    fn run(mut self, stop: &AtomicBool) -> Tally {
        let mut connection = None;
        let mut number = 0;
        while !stop.load(Relaxed) {
            self.tally.sent += 1;
            let started = Instant::now();
            // A connection may be closed at any time; a client then asks again (RFC 7766 §6.2.4).
            while started.elapsed() < GIVE_UP {
                match self.exchange(&mut connection, number) {
                    Ok(answer) => {
                        self.tally.take(&answer, started.elapsed());
                        break;
                    }
                    Err(_) => {
                        connection = None;
                        self.tally.reopened += 1;
                        thread::sleep(TICK);
                    }
                }
            }
            number += 1;
            thread::sleep(TCP_PAUSE);
        }
        self.tally
    }

    fn exchange(&mut self, connection: &mut Option<TcpStream>, number: usize) -> std::io::Result<Vec<u8>> {
        let stream = match connection {
            Some(stream) => stream,
            none => none.insert(self.open()?),
        };
        let query = query(number as u16, QUICK, &format!("warm{}", number % WARM));
        let length = u16::try_from(query.len()).unwrap().to_be_bytes();
        stream.write_all(&[&length[..], &query].concat())?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut answer)?;
        assert_eq!(answer[..2], query[..2]);
        Ok(answer)
    }
}
