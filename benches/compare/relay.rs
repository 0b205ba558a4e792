//! The floor of a miss: passes each query on over one TCP connection, unread but for its id, and each answer back.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use crate::datagrams::{Datagrams, Peer, SLOTS};

/// How long it rests before each turn, as Doorstep does at a high rate of misses.
const REST: Duration = Duration::from_millis(1);

/// Serves `address` until the upstream closes the connection.
pub fn serve(address: SocketAddr, upstream: SocketAddr) -> io::Result<()> {
    let mut relay = Relay::open(address, upstream)?;
    loop {
        let mut ready =
            [PollFd::new(&relay.clients, PollFlags::IN), PollFd::new(&relay.upstream, PollFlags::IN)];
        poll(&mut ready, None)?;
        thread::sleep(REST);
        relay.pass_on()?;
        relay.pass_back()?;
    }
}

struct Relay {
    clients: UdpSocket,
    upstream: TcpStream,
    incoming: Datagrams,
    outgoing: Datagrams,
    /// Who asked, and with which id, by the id that the upstream sees.
    asked: Vec<(Peer, [u8; 2])>,
    next: u16,
    queries: Vec<u8>,
    answers: Vec<u8>,
}

impl Relay {
    fn open(address: SocketAddr, upstream: SocketAddr) -> io::Result<Relay> {
        let clients = UdpSocket::bind(address)?;
        clients.set_nonblocking(true)?;
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&clients, 8 << 20);
        let upstream = TcpStream::connect(upstream)?;
        upstream.set_nodelay(true)?;
        upstream.set_nonblocking(true)?;
        let (incoming, outgoing) = (Datagrams::with_peers(), Datagrams::with_peers());
        let asked = vec![(incoming.peer(0), [0; 2]); 1 << 16];
        let (queries, answers) = (Vec::new(), Vec::new());
        Ok(Relay { clients, upstream, incoming, outgoing, asked, next: 0, queries, answers })
    }

    fn pass_on(&mut self) -> io::Result<()> {
        let Some(received) = unless_it_would_block(self.incoming.receive(&self.clients))? else {
            return Ok(());
        };
        for slot in 0..received {
            let peer = self.incoming.peer(slot);
            let Some((id, rest)) = self.incoming.datagram(slot).split_first_chunk::<2>() else { continue };
            self.asked[usize::from(self.next)] = (peer, *id);
            // A datagram is shorter than 64 KiB.
            self.queries.extend_from_slice(&(rest.len() as u16 + 2).to_be_bytes());
            self.queries.extend_from_slice(&self.next.to_be_bytes());
            self.queries.extend_from_slice(rest);
            self.next = self.next.wrapping_add(1);
        }
        if let Some(written) = unless_it_would_block(self.upstream.write(&self.queries))? {
            self.queries.drain(..written);
        }
        Ok(())
    }

    fn pass_back(&mut self) -> io::Result<()> {
        let held = self.answers.len();
        self.answers.resize(held + (1 << 16), 0);
        let read = unless_it_would_block(self.upstream.read(&mut self.answers[held..]))?;
        self.answers.truncate(held + read.unwrap_or(0));
        if read == Some(0) {
            return Err(io::Error::other("the upstream closed the connection"));
        }
        let (mut taken, mut slot) = (0, 0);
        while let Some(answer) = first_message(&self.answers[taken..]) {
            taken += 2 + answer.len();
            let Some((id, rest)) = answer.split_first_chunk::<2>() else { continue };
            let (peer, id) = self.asked[usize::from(u16::from_be_bytes(*id))];
            let Some(room) = self.outgoing.room(slot).get_mut(..answer.len()) else { continue };
            room[..2].copy_from_slice(&id);
            room[2..].copy_from_slice(rest);
            self.outgoing.fill_for(slot, answer.len(), peer);
            slot += 1;
            if slot == SLOTS {
                send(&mut self.outgoing, &self.clients, slot);
                slot = 0;
            }
        }
        send(&mut self.outgoing, &self.clients, slot);
        self.answers.drain(..taken);
        Ok(())
    }
}

/// The first message of a stream (RFC 1035 §4.2.2), if all of it is there.
fn first_message(stream: &[u8]) -> Option<&[u8]> {
    let (len, rest) = stream.split_first_chunk::<2>()?;
    rest.get(..usize::from(u16::from_be_bytes(*len)))
}

fn send(outgoing: &mut Datagrams, clients: &UdpSocket, slots: usize) {
    let mut sent = 0;
    while sent < slots {
        // One that the kernel refuses is lost, as in any server.
        sent += outgoing.send(clients, sent, slots).unwrap_or(1);
    }
}

fn unless_it_would_block<T>(done: io::Result<T>) -> io::Result<Option<T>> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        done => done.map(Some),
    }
}
