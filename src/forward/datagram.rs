//! Queries over UDP, each from a socket of its own.
//!
//! A socket per query in flight means a source port nobody can guess (RFC 5452 §9.2), and that no
//! two queries race each other into conntrack under one address pair: the loss this project exists
//! to avoid.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use rustix::buffer::spare_capacity;
use rustix::net::{RecvFlags, recv};
use socket2::{Domain, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::coop::consume_budget;

use super::error::{Failure, Operation, Reason};
use super::message;
use super::metrics::Protocol;
use super::random::Random;
use crate::wire::HEADER;

/// Sockets open at once towards one upstream.
const MAX_SOCKETS: usize = 2048;
/// Datagrams that are no answer, after which nobody is waited for any more: a flood of them is a
/// fault or an attempt at guessing.
const MAX_STRAYS: u32 = 64;
/// No UDP datagram is longer.
const MAX_DATAGRAM: usize = 65535;

/// UDP towards one upstream.
pub(super) struct Datagrams {
    to: SocketAddr,
    random: Rc<Random>,
    open: Cell<usize>,
    /// Where datagrams land; borrowed for one receive call at a time.
    scratch: RefCell<Vec<u8>>,
}

impl Datagrams {
    pub(super) fn new(to: SocketAddr, random: Rc<Random>) -> Datagrams {
        Datagrams { to, random, open: Cell::new(0), scratch: RefCell::default() }
    }

    /// Sends `query` under a random id and waits for a datagram with that id that `accept` takes;
    /// everything else is ignored. The reply carries the query's own id again.
    ///
    /// Waits without end if nothing comes: the caller holds the clock.
    pub(super) async fn exchange(
        &self,
        query: &[u8],
        accept: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<u8>, Failure> {
        let _place = self.place().ok_or_else(|| self.failure(Operation::Dial, Reason::Busy))?;
        let dial = |error: io::Error| self.failure(Operation::Dial, Reason::from(&error));
        let read = |error: io::Error| self.failure(Operation::Read, Reason::from(&error));
        let id = self.random.number();
        let mut sent = query.to_vec();
        message::set_id(&mut sent, id);
        let socket = connected_socket(self.to).map_err(dial)?;
        // Straight from the start: an empty socket takes a datagram without waiting.
        socket.send(&sent).map_err(read)?;
        let socket = UdpSocket::from_std(socket.into()).map_err(dial)?;
        for _ in 0..=MAX_STRAYS {
            let reply = self
                .receive(&socket, |reply| message::id(reply) == id && accept(reply))
                .await
                .map_err(read)?;
            if let Some(mut reply) = reply {
                message::set_id(&mut reply, message::id(query));
                return Ok(reply);
            }
        }
        Err(self.failure(Operation::Read, Reason::Garbage))
    }

    /// The next datagram, if it is one that `accept` takes.
    async fn receive(
        &self,
        socket: &UdpSocket,
        accept: impl Fn(&[u8]) -> bool,
    ) -> io::Result<Option<Vec<u8>>> {
        loop {
            // However fast they come: the thread has other work.
            consume_budget().await;
            // An ICMP error wakes nobody who waits to read only, and `try_io` knows one of the two.
            let ready = socket.ready(Interest::READABLE | Interest::ERROR).await?;
            let interest = if ready.is_error() { Interest::ERROR } else { Interest::READABLE };
            let mut scratch = self.scratch.borrow_mut();
            scratch.clear();
            scratch.reserve(MAX_DATAGRAM);
            let received = socket.try_io(interest, || {
                Ok(recv(socket, spare_capacity(&mut scratch), RecvFlags::empty()).map(|_| ())?)
            });
            match received {
                Ok(()) => {
                    let taken = scratch.len() >= HEADER && accept(&scratch);
                    return Ok(taken.then(|| scratch.to_vec()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn place(&self) -> Option<Place<'_>> {
        if self.open.get() >= MAX_SOCKETS {
            return None;
        }
        self.open.set(self.open.get() + 1);
        Some(Place(&self.open))
    }

    fn failure(&self, operation: Operation, reason: Reason) -> Failure {
        Failure { operation, protocol: Protocol::Udp, to: self.to, reason }
    }
}

/// One of the sockets that may be open.
struct Place<'a>(&'a Cell<usize>);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// connect(2) on an unbound socket makes the kernel pick a random free port, and lets it filter
/// other senders and report ICMP errors.
fn connected_socket(to: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM.nonblocking(), None)?;
    socket.connect(&to.into())?;
    Ok(socket)
}
