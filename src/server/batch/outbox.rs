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

impl Outbox {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
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
        let mut refused = 0;
        for together in self.datagrams.chunk_by(|one, next| Arc::ptr_eq(&one.socket, &next.socket)) {
            refused += self.calls.send(&self.octets, together);
        }
        self.datagrams.clear();
        self.octets.clear();
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
