//! An upstream that keeps no answer back: it answers the queries of each connection in order and sends at once, as
//! CoreDNS does (Go sets TCP_NODELAY), while NSD leaves Nagle's algorithm on.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use crate::process::{Process, first_answer, free_address};
use crate::questions::ZONE;

/// A running one.
pub struct Prompt {
    pub address: SocketAddr,
    _process: Process,
}

impl Prompt {
    /// Starts it as a process of its own.
    pub fn start() -> io::Result<Prompt> {
        let address = free_address()?;
        let mut command = Command::new(std::env::current_exe()?);
        let process = Process::start(command.args(["upstream", &address.to_string()]))?;
        match first_answer(address, &format!("h0.{ZONE}"), Duration::from_secs(10)) {
            Some(_) => Ok(Prompt { address, _process: process }),
            None => Err(io::Error::other("the upstream does not answer")),
        }
    }
}

/// Serves `address` over UDP and TCP until it is killed.
pub fn serve(address: SocketAddr) -> io::Result<()> {
    let (datagrams, listener) = (UdpSocket::bind(address)?, TcpListener::bind(address)?);
    datagrams.set_nonblocking(true)?;
    listener.set_nonblocking(true)?;
    let mut connections: BTreeMap<u64, Connection> = BTreeMap::new();
    let mut serial = 0;
    loop {
        let mut ready = vec![PollFd::new(&datagrams, PollFlags::IN), PollFd::new(&listener, PollFlags::IN)];
        ready.extend(connections.values().map(|connection| PollFd::new(&connection.stream, PollFlags::IN)));
        poll(&mut ready, None)?;
        let ready: Vec<bool> = ready.iter().map(|fd| !fd.revents().is_empty()).collect();
        let readable = connections.iter_mut().zip(&ready[2..]).filter(|(_, ready)| **ready);
        let ended: Vec<u64> = readable
            .filter_map(|((serial, connection), _)| (!connection.answer_all()).then_some(*serial))
            .collect();
        ended.iter().for_each(|serial| drop(connections.remove(serial)));
        if ready[1]
            && let Ok((stream, _)) = listener.accept()
        {
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            serial += 1;
            connections.insert(serial, Connection { stream, queries: Vec::new(), answers: Vec::new() });
        }
        let mut buffer = [0; 512];
        while ready[0]
            && let Ok((len, peer)) = datagrams.recv_from(&mut buffer)
        {
            let mut reply = Vec::new();
            answer(&buffer[..len], &mut reply);
            // A client may be gone.
            let _ = datagrams.send_to(&reply, peer);
        }
    }
}

struct Connection {
    stream: TcpStream,
    queries: Vec<u8>,
    answers: Vec<u8>,
}

impl Connection {
    /// Answers what has come; whether there may be more.
    fn answer_all(&mut self) -> bool {
        let held = self.queries.len();
        self.queries.resize(held + (1 << 16), 0);
        let Ok(read @ 1..) = self.stream.read(&mut self.queries[held..]) else { return false };
        self.queries.truncate(held + read);
        let mut taken = 0;
        self.answers.clear();
        while let Some((len, rest)) = self.queries[taken..].split_first_chunk::<2>()
            && let Some(query) = rest.get(..usize::from(u16::from_be_bytes(*len)))
        {
            taken += 2 + query.len();
            let start = self.answers.len();
            self.answers.extend([0; 2]);
            answer(query, &mut self.answers);
            // A query was shorter than 64 KiB, and so is its answer.
            let len = (self.answers.len() - start - 2) as u16;
            self.answers[start..start + 2].copy_from_slice(&len.to_be_bytes());
        }
        self.queries.drain(..taken);
        // What a socket has no room for was asked for by nobody who measures.
        self.stream.write_all(&self.answers).is_ok()
    }
}

/// Appends the answer to `query`: one address, if that is what it asks for.
fn answer(query: &[u8], reply: &mut Vec<u8>) {
    const HEADER: usize = 12;
    let name = query.iter().skip(HEADER).position(|octet| *octet == 0).unwrap_or(0);
    let Some(question) = query.get(HEADER..HEADER + name + 5) else { return };
    let wants_address = question.ends_with(&[0, 1, 0, 1]);
    reply.extend(&query[..2]);
    reply.extend([0x85, 0x80, 0, 1, 0, u8::from(wants_address), 0, 0, 0, 0]);
    reply.extend(question);
    if wants_address {
        reply.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0x0e, 0x10, 0, 4, 10, 255, 0, 1]);
    }
}
