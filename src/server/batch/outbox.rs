//! Replies from a thread that received no batch: gathered over a turn, sent in one call.

#![allow(unsafe_code)]

use std::mem;
use std::net::UdpSocket;
use std::sync::Arc;

use socket2::SockAddr;

use super::packet_info::{Control, set_source};
use super::{Origin, SLOTS, many};

/// Datagrams that wait to be sent.
#[derive(Default)]
pub struct Outbox {
    octets: Vec<u8>,
    datagrams: Vec<Datagram>,
    /// What the kernel is shown, kept for its allocation.
    calls: Calls,
}

struct Datagram {
    socket: Arc<UdpSocket>,
    peer: SockAddr,
    control: Option<Control>,
    control_len: usize,
    start: usize,
    len: usize,
}

#[derive(Default)]
struct Calls {
    iovecs: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

// SAFETY: the pointers in them are written anew for each system call and followed only during it.
unsafe impl Send for Calls {}

impl Outbox {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.datagrams.len()
    }

    /// Whether it is time to send.
    pub fn is_full(&self) -> bool {
        self.datagrams.len() >= SLOTS
    }

    /// Adds `reply`, to leave by `socket` to `origin`, from `origin.local` if that is known.
    pub fn push(&mut self, socket: &Arc<UdpSocket>, origin: Origin, reply: &[u8]) {
        let mut control = None;
        let mut control_len = 0;
        if let Some(local) = origin.local {
            let area = control.insert(Control([0; Control::LEN]));
            // SAFETY: zero octets are a valid msghdr.
            let mut header = unsafe { mem::zeroed::<libc::msghdr>() };
            header.msg_control = area.0.as_mut_ptr().cast();
            header.msg_controllen = Control::LEN as _;
            set_source(&mut header, local);
            control_len = header.msg_controllen as usize;
        }
        let start = self.octets.len();
        self.octets.extend_from_slice(reply);
        self.datagrams.push(Datagram {
            socket: socket.clone(),
            peer: SockAddr::from(origin.peer),
            control,
            control_len,
            start,
            len: reply.len(),
        });
    }

    /// Sends all without waiting and returns how many the kernel refused, which are lost like any
    /// other datagram.
    pub fn send(&mut self) -> usize {
        self.send_first(self.datagrams.len())
    }

    /// As [`Outbox::send`], but no more than `count` of those that wait, the oldest ones.
    pub fn send_first(&mut self, count: usize) -> usize {
        let count = count.min(self.datagrams.len());
        let mut refused = 0;
        for together in self.datagrams[..count].chunk_by(|one, next| Arc::ptr_eq(&one.socket, &next.socket)) {
            refused += self.calls.send(&self.octets, together);
        }
        self.datagrams.drain(..count);
        let sent = self.datagrams.first().map_or(self.octets.len(), |next| next.start);
        self.octets.drain(..sent);
        self.datagrams.iter_mut().for_each(|waiting| waiting.start -= sent);
        refused
    }
}

impl Calls {
    /// Sends `datagrams`, which are all of one socket.
    fn send(&mut self, octets: &[u8], datagrams: &[Datagram]) -> usize {
        self.iovecs.clear();
        self.headers.clear();
        self.iovecs.extend(datagrams.iter().map(|datagram| libc::iovec {
            iov_base: octets[datagram.start..].as_ptr().cast_mut().cast(),
            iov_len: datagram.len,
        }));
        for (datagram, iovec) in datagrams.iter().zip(&mut self.iovecs) {
            // SAFETY: zero octets are a valid mmsghdr.
            let mut header = unsafe { mem::zeroed::<libc::mmsghdr>() };
            header.msg_hdr.msg_name = datagram.peer.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_namelen = datagram.peer.len();
            header.msg_hdr.msg_iov = iovec;
            header.msg_hdr.msg_iovlen = 1;
            if let Some(control) = &datagram.control {
                header.msg_hdr.msg_control = control.0.as_ptr().cast_mut().cast();
                header.msg_hdr.msg_controllen = datagram.control_len as _;
            }
            self.headers.push(header);
        }
        let Some(first) = datagrams.first() else { return 0 };
        // SAFETY: each header points to octets, an address and control messages that outlive the call and
        // that the kernel only reads; it writes nothing but the headers' lengths.
        unsafe {
            many::send(&first.socket, self.headers.as_mut_ptr(), self.headers.len(), libc::MSG_DONTWAIT)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_leave_first_and_the_rest_stays_whole() {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let origin = Origin { peer: client.local_addr().unwrap(), local: None };
        let mut outbox = Outbox::default();
        for mark in 0..5_u8 {
            outbox.push(&socket, origin, &vec![mark; 1 + usize::from(mark)]);
        }
        let mut received = || {
            let mut buffer = [0; 16];
            let len = client.recv(&mut buffer).unwrap();
            buffer[..len].to_vec()
        };
        assert_eq!((outbox.send_first(2), outbox.len()), (0, 3));
        assert_eq!([received(), received()], [vec![0], vec![1; 2]]);
        outbox.push(&socket, origin, &[9; 3]);
        assert_eq!((outbox.send_first(usize::MAX), outbox.is_empty()), (0, true));
        assert_eq!([(); 4].map(|()| received()), [vec![2; 3], vec![3; 4], vec![4; 5], vec![9; 3]]);
        assert!(outbox.octets.is_empty());
    }
}
