//! The way back to a client.

use std::cell::Cell;
use std::net::UdpSocket;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::batch::{Origin, Outbox};
use super::client::Client;

/// Where a reply goes.
pub enum ReplyTo {
    /// A datagram on the socket the query came in by.
    Udp(Arc<UdpSocket>, Client),
    /// A frame on its connection.
    Tcp(ReplySlot, Client),
}

/// Room for one reply on a connection.
pub struct ReplySlot {
    replies: mpsc::Sender<Frame>,
    permit: Cell<Option<OwnedSemaphorePermit>>,
}

/// A reply with its length in front (RFC 1035 §4.2.2), and the permit it gives back once written.
pub struct Frame {
    octets: Vec<u8>,
    _permit: OwnedSemaphorePermit,
}

impl Frame {
    /// What is to be written.
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }
}

impl ReplySlot {
    /// A slot in the queue `replies`, which has a place for each permit.
    pub fn new(replies: mpsc::Sender<Frame>, permit: OwnedSemaphorePermit) -> ReplySlot {
        ReplySlot { replies, permit: Cell::new(Some(permit)) }
    }

    /// Queues `reply` for sending. Each slot is filled once; if the connection is gone, nobody minds.
    pub fn fill(&self, reply: &[u8]) {
        let (Some(permit), Ok(len)) = (self.permit.take(), u16::try_from(reply.len())) else {
            return;
        };
        let mut octets = Vec::with_capacity(2 + reply.len());
        octets.extend_from_slice(&len.to_be_bytes());
        octets.extend_from_slice(reply);
        // The queue has a place for each permit, so it is never full.
        let _ = self.replies.try_send(Frame { octets, _permit: permit });
    }
}

impl ReplyTo {
    /// Who is at its end.
    pub fn client(&self) -> Client {
        match self {
            ReplyTo::Udp(_, client) | ReplyTo::Tcp(_, client) => *client,
        }
    }

    /// Sends `reply`, without waiting; a datagram goes into `outbox`.
    pub fn send(&self, reply: &[u8], outbox: &mut Outbox) {
        match self {
            ReplyTo::Udp(socket, client) => {
                outbox.push(socket, Origin { peer: client.peer, local: client.local }, reply);
            }
            ReplyTo::Tcp(slot, _) => slot.fill(reply),
        }
    }
}
