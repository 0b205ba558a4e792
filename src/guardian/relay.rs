//! What answers while no worker stands: queries go to the upstream and answers back, octet for octet.
//!
//! Nothing is looked at and nothing is kept, so whatever ended the worker does not end this. Each query
//! has a socket of its own to the upstream: two queries on one socket would race in conntrack.

mod stream;

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use super::counts::{Counts, what};
use crate::server::{Batch, Origin, Outbox};

/// Queries under way at most; the oldest gives way, its client asks again.
const UNDER_WAY: usize = 512;
/// How long an answer is waited for. A stub resolver asks again after 5 s.
const PATIENCE: Duration = Duration::from_secs(4);
/// An upstream that answers none of its queries for this long gives way to the next.
const SILENCE: Duration = Duration::from_secs(2);
/// Octets of the longest UDP message.
const LONGEST: usize = 65_535;
/// Wakes at least this often, to give up on what is too old.
const TICK: Duration = Duration::from_millis(250);

/// The running thread. Dropping it ends it: what is under way is still answered by then, or asked
/// again by its client.
#[derive(Debug)]
pub struct Relay {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Answers what comes in by `udp` and `tcp` from the first of `upstreams` that does answer.
    pub fn start(
        udp: Vec<UdpSocket>,
        tcp: Vec<TcpListener>,
        upstreams: Vec<SocketAddr>,
        counts: Counts,
    ) -> io::Result<Relay> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let doors = udp.into_iter().map(|socket| {
            let batch = Batch::new(&socket)?;
            Ok((Arc::new(socket), batch))
        });
        let running = Running {
            stop: stop.clone(),
            doors: doors.collect::<io::Result<_>>()?,
            listeners: tcp,
            upstreams,
            under_way: VecDeque::new(),
            streams: Arc::default(),
            heard: Instant::now(),
            counts,
        };
        let thread = std::thread::Builder::new().name("relay".into()).spawn(move || running.run())?;
        Ok(Relay { stop, thread: Some(thread) })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Fails only when the counter is full, that is when it was told already.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Running {
    stop: Arc<OwnedFd>,
    doors: Vec<(Arc<UdpSocket>, Batch)>,
    listeners: Vec<TcpListener>,
    upstreams: Vec<SocketAddr>,
    under_way: VecDeque<Query>,
    streams: Arc<AtomicUsize>,
    /// When an upstream last answered, or was first asked.
    heard: Instant,
    counts: Counts,
}

/// One datagram on its way.
struct Query {
    upstream: UdpSocket,
    door: Arc<UdpSocket>,
    client: Origin,
    since: Instant,
}

/// What can be read.
#[derive(Default)]
struct Readable {
    stop: bool,
    doors: Vec<usize>,
    listeners: Vec<usize>,
    answers: Vec<usize>,
}

impl Running {
    fn run(mut self) {
        let (mut answer, mut outbox) = (vec![0; LONGEST], Outbox::default());
        loop {
            let readable = match self.wait() {
                Ok(readable) if readable.stop => return,
                Ok(readable) => readable,
                Err(error) => {
                    tracing::error!("relay: {error}");
                    return;
                }
            };
            self.answer(&readable.answers, &mut answer, &mut outbox);
            readable.doors.iter().for_each(|&door| self.ask(door));
            readable.listeners.iter().for_each(|&listener| self.accept(listener));
            self.give_up();
        }
    }

    fn wait(&self) -> io::Result<Readable> {
        let readable = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        use std::os::fd::AsFd;
        let mut polled = vec![readable(self.stop.as_fd())];
        polled.extend(self.doors.iter().map(|(socket, _)| readable(socket.as_fd())));
        polled.extend(self.listeners.iter().map(|listener| readable(listener.as_fd())));
        polled.extend(self.under_way.iter().map(|query| readable(query.upstream.as_fd())));
        let timeout = Timespec::try_from(TICK).ok();
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut ready = polled.iter().map(|fd| !fd.revents().is_empty());
        let stop = ready.next().unwrap_or(true);
        let mut which = |count| {
            let ready = (0..count).zip(ready.by_ref().take(count));
            ready.filter_map(|(at, is)| is.then_some(at)).collect()
        };
        Ok(Readable {
            stop,
            doors: which(self.doors.len()),
            listeners: which(self.listeners.len()),
            answers: which(self.under_way.len()),
        })
    }

    /// Sends on what waits at a door.
    fn ask(&mut self, door: usize) {
        let Some(&upstream) = self.upstreams.first() else { return };
        let Some((socket, batch)) = self.doors.get_mut(door) else { return };
        let Ok(received) = batch.receive_waiting(socket) else { return };
        let now = Instant::now();
        if self.under_way.is_empty() {
            self.heard = now;
        }
        for slot in 0..received {
            let Some(client) = batch.origin(slot) else { continue };
            let (packet, _) = batch.packet_and_room(slot);
            // What cannot be sent on its client asks again.
            let Ok(to_upstream) = send(packet, upstream) else { continue };
            if self.under_way.len() == UNDER_WAY {
                self.under_way.pop_front();
            }
            self.under_way.push_back(Query {
                upstream: to_upstream,
                door: socket.clone(),
                client,
                since: now,
            });
        }
        self.counts.add(what::RELAYED, "udp", received as u64);
    }

    /// Sends back what came for the queries at these places, in ascending order.
    fn answer(&mut self, answered: &[usize], room: &mut [u8], outbox: &mut Outbox) {
        for &at in answered.iter().rev() {
            let Some(query) = self.under_way.remove(at) else { continue };
            // An error is the upstream's ICMP message; the client asks again.
            let Ok(len) = query.upstream.recv(room) else { continue };
            self.heard = Instant::now();
            outbox.push(&query.door, query.client, &room[..len]);
            if outbox.is_full() {
                outbox.send();
            }
        }
        outbox.send();
    }

    fn accept(&mut self, listener: usize) {
        let Some(&upstream) = self.upstreams.first() else { return };
        while let Some(Ok((client, _))) = self.listeners.get(listener).map(TcpListener::accept) {
            self.counts.add(what::RELAYED, "tcp", 1);
            stream::join(client, upstream, &self.streams);
        }
    }

    fn give_up(&mut self) {
        let now = Instant::now();
        while self.under_way.front().is_some_and(|query| now - query.since > PATIENCE) {
            self.under_way.pop_front();
        }
        if !self.under_way.is_empty() && now - self.heard > SILENCE && self.upstreams.len() > 1 {
            self.upstreams.rotate_left(1);
            self.heard = now;
            tracing::warn!("relay: asks {} from now on", self.upstreams[0]);
        }
    }
}

/// Sends `packet` from a socket of its own.
fn send(packet: &[u8], upstream: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match upstream {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    // Takes datagrams from the upstream alone.
    socket.connect(upstream)?;
    socket.set_nonblocking(true)?;
    socket.send(packet)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    fn socket() -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    }

    #[test]
    fn octets_go_there_and_back_and_a_silent_upstream_gives_way() {
        let (door, client, upstream, silent) = (socket(), socket(), socket(), socket());
        let address = door.local_addr().unwrap();
        let upstreams = vec![silent.local_addr().unwrap(), upstream.local_addr().unwrap()];
        let counts = Counts::default();
        let relay = Relay::start(vec![door], Vec::new(), upstreams, counts.clone()).unwrap();
        let mut room = [0; 512];
        client.send_to(b"not DNS at all", address).unwrap();
        assert_eq!(silent.recv(&mut room).unwrap(), 14);
        // The next is sent once the relay has lost patience with the first upstream.
        std::thread::sleep(SILENCE + 2 * TICK);
        client.send_to(b"again", address).unwrap();
        let (len, relayed) = upstream.recv_from(&mut room).unwrap();
        assert_eq!(&room[..len], b"again");
        upstream.send_to(b"the answer", relayed).unwrap();
        let (len, from) = client.recv_from(&mut room).unwrap();
        assert_eq!((&room[..len], from), (&b"the answer"[..], address));
        drop(relay);
        assert!(counts.all().iter().any(|count| count.what == what::RELAYED && count.total == 2));
    }

    #[test]
    fn a_connection_is_passed_through() {
        let (door, upstream) =
            (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let address = door.local_addr().unwrap();
        door.set_nonblocking(true).unwrap();
        let upstreams = vec![upstream.local_addr().unwrap()];
        let relay = Relay::start(Vec::new(), vec![door], upstreams, Counts::default()).unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"question").unwrap();
        let (mut server, _) = upstream.accept().unwrap();
        let mut room = [0; 8];
        server.read_exact(&mut room).unwrap();
        assert_eq!(&room, b"question");
        server.write_all(b"response").unwrap();
        client.read_exact(&mut room).unwrap();
        assert_eq!(&room, b"response");
        drop(server);
        assert_eq!(client.read(&mut room).unwrap(), 0);
        drop(relay);
    }
}
