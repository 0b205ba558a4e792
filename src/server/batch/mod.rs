//! Datagrams by the batch: `recvmmsg`, `sendmmsg`, and what only libc offers beside them.
//!
//! ```text
//! receive ─► packet_and_room(i), push_reply(i, len) … ─► send
//! ```
//!
//! This folder and no other place calls libc. All buffers are allocated once; the kernel sees
//! pointers into them only during a system call made here.

#![allow(unsafe_code)]

mod many;
mod outbox;
mod packet_info;
mod slice;
mod wake;

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};

use crate::wire::REPLY_ROOM;
use packet_info::{Control, clear_interface, destination, report_destination};

pub use outbox::Outbox;
pub use slice::ask_for_short_slice;
pub use wake::Wake;

/// Datagrams per system call.
pub const SLOTS: usize = 32;
/// Octets of a query we take; a longer one arrives cut and is then malformed. (CoreDNS takes 512.)
const PACKET: usize = 4096;
/// Octets of replies before a send is due. Pages cost memory only once they were used.
const REPLIES: usize = 4 * 65_536;

/// Buffers for one thread's datagrams.
pub struct Batch {
    /// Owned, from `Box::into_raw`; every access goes through this pointer, so that those which the
    /// kernel's structures hold stay valid between calls.
    arena: *mut Arena,
    /// Incoming headers that the last call left changed.
    dirty: usize,
    wildcard: bool,
    /// Replies that wait to be sent, and where the last of them ends.
    replies: usize,
    replies_end: usize,
}

/// What the kernel reads and writes. Zero octets are a valid value of every part.
#[repr(C)]
struct Arena {
    incoming: Headers,
    outgoing: Headers,
    peers: [libc::sockaddr_storage; SLOTS],
    controls: [Control; SLOTS],
    packets: [[u8; PACKET]; SLOTS],
    replies: [u8; REPLIES],
}

/// One system call's datagrams.
#[repr(C)]
struct Headers {
    messages: [libc::mmsghdr; SLOTS],
    iovecs: [libc::iovec; SLOTS],
}

/// Where a datagram came from, and where it was sent to if the socket serves a wildcard address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The client.
    pub peer: SocketAddr,
    /// The address the client asked.
    pub local: Option<IpAddr>,
}

impl Batch {
    /// Buffers for `socket`. On a wildcard address the socket is told to report each datagram's
    /// destination, so that replies leave from there.
    pub fn new(socket: &UdpSocket) -> io::Result<Batch> {
        let address = socket.local_addr()?;
        let wildcard = address.ip().is_unspecified();
        if wildcard {
            report_destination(socket, address.is_ipv4())?;
        }
        // SAFETY: zero octets are a valid Arena.
        let arena = unsafe { Box::<Arena>::new_zeroed().assume_init() };
        let mut batch =
            Batch { arena: Box::into_raw(arena), dirty: SLOTS, wildcard, replies: 0, replies_end: 0 };
        batch.connect();
        Ok(batch)
    }

    /// Writes the pointers that never change.
    fn connect(&mut self) {
        let arena = self.arena;
        for slot in 0..SLOTS {
            // SAFETY: slot is below SLOTS; only places inside the arena are written or pointed at.
            unsafe {
                let (incoming, outgoing) = (&raw mut (*arena).incoming, &raw mut (*arena).outgoing);
                (*incoming).iovecs[slot] =
                    libc::iovec { iov_base: (&raw mut (*arena).packets[slot]).cast(), iov_len: PACKET };
                for headers in [incoming, outgoing] {
                    let header = &raw mut (*headers).messages[slot].msg_hdr;
                    (*header).msg_iov = &raw mut (*headers).iovecs[slot];
                    (*header).msg_iovlen = 1;
                }
                let header = &raw mut (*incoming).messages[slot].msg_hdr;
                (*header).msg_name = (&raw mut (*arena).peers[slot]).cast();
                if self.wildcard {
                    (*header).msg_control = (&raw mut (*arena).controls[slot]).cast();
                }
            }
        }
    }

    /// Waits for a datagram, takes what else is there, and says how many; replies not sent are gone.
    ///
    /// Fails with `Interrupted` when a signal came.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.receive_with(socket, libc::MSG_WAITFORONE)
    }

    /// As [`Batch::receive`], but `WouldBlock` when nothing is there.
    pub fn receive_waiting(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.receive_with(socket, libc::MSG_DONTWAIT)
    }

    fn receive_with(&mut self, socket: &UdpSocket, flags: libc::c_int) -> io::Result<usize> {
        self.forget_replies();
        self.restore_lengths();
        // SAFETY: every header points into the arena, which lives as long as this value and is not
        // touched otherwise until the call returns.
        let received = unsafe {
            let headers = (&raw mut (*self.arena).incoming.messages).cast();
            many::receive(socket, headers, SLOTS, flags)
        }?;
        self.dirty = received;
        Ok(received)
    }

    /// Restores what the kernel wrote over: how much room there is for addresses.
    fn restore_lengths(&mut self) {
        for slot in 0..self.dirty {
            // SAFETY: slot is below SLOTS; only places inside the arena are written.
            unsafe {
                let header = &raw mut (*self.arena).incoming.messages[slot].msg_hdr;
                (*header).msg_namelen = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
                if self.wildcard {
                    (*header).msg_controllen = Control::LEN as _;
                }
            }
        }
        self.dirty = 0;
    }

    /// The datagram in `slot`, which must be below what [`Batch::receive`] returned, and room for its
    /// reply: at least [`REPLY_ROOM`] octets while [`Batch::has_room`].
    #[inline]
    pub fn packet_and_room(&mut self, slot: usize) -> (&[u8], &mut [u8]) {
        assert!(slot < SLOTS);
        // SAFETY: both slices lie in the arena and do not overlap; `&mut self` keeps them alone.
        // replies_end never exceeds REPLIES, as push_reply checks.
        unsafe {
            let len = ((*self.arena).incoming.messages[slot].msg_len as usize).min(PACKET);
            let packet = std::slice::from_raw_parts((&raw const (*self.arena).packets[slot]).cast(), len);
            let room = (&raw mut (*self.arena).replies).cast::<u8>().add(self.replies_end);
            (packet, std::slice::from_raw_parts_mut(room, REPLIES - self.replies_end))
        }
    }

    /// Whether there is room for one more reply of any size; if not, send first.
    #[inline]
    pub fn has_room(&self) -> bool {
        REPLIES - self.replies_end >= REPLY_ROOM
    }

    /// Who sent the datagram in `slot`; `None` when it cannot be answered (port 0, odd family).
    #[inline]
    pub fn origin(&self, slot: usize) -> Option<Origin> {
        assert!(slot < SLOTS);
        // SAFETY: slot is below SLOTS, and nothing else refers to the arena now.
        let (peer, header) =
            unsafe { (&(*self.arena).peers[slot], &(*self.arena).incoming.messages[slot].msg_hdr) };
        let peer = socket_address(peer)?;
        if peer.port() == 0 {
            return None;
        }
        let local = if self.wildcard { destination(header) } else { None };
        Some(Origin { peer, local })
    }

    /// The first `len` octets of the room are the reply to the datagram in `slot`, which gets one.
    #[inline]
    pub fn push_reply(&mut self, slot: usize, len: usize) {
        let (arena, place) = (self.arena, self.replies);
        assert!(slot < SLOTS && place < SLOTS && len <= REPLIES - self.replies_end);
        // SAFETY: slot and place are below SLOTS, and the reply is within the replies; only places inside the
        // arena are written or pointed at.
        unsafe {
            let incoming = &raw const (*arena).incoming.messages[slot].msg_hdr;
            let outgoing = &raw mut (*arena).outgoing;
            let base = (&raw mut (*arena).replies).cast::<u8>().add(self.replies_end);
            (*outgoing).iovecs[place] = libc::iovec { iov_base: base.cast(), iov_len: len };
            let header = &raw mut (*outgoing).messages[place].msg_hdr;
            (*header).msg_name = (*incoming).msg_name;
            (*header).msg_namelen = (*incoming).msg_namelen;
            if self.wildcard {
                clear_interface(&*incoming);
                (*header).msg_control = (*incoming).msg_control;
                (*header).msg_controllen = (*incoming).msg_controllen;
            }
        }
        self.replies += 1;
        self.replies_end += len;
    }

    /// Sends the replies and returns how many of them the kernel refused.
    pub fn send(&mut self, socket: &UdpSocket) -> usize {
        if self.replies == 0 {
            return 0;
        }
        // SAFETY: as many headers were filled by push_reply with pointers into the arena.
        let refused = unsafe {
            let headers = (&raw mut (*self.arena).outgoing.messages).cast();
            many::send(socket, headers, self.replies, 0)
        };
        self.forget_replies();
        refused
    }

    fn forget_replies(&mut self) {
        self.replies = 0;
        self.replies_end = 0;
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // SAFETY: the pointer came from Box::into_raw and is given back once.
        drop(unsafe { Box::from_raw(self.arena) });
    }
}

// SAFETY: the arena is owned by this value alone; its pointers point into itself.
unsafe impl Send for Batch {}

fn socket_address(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the kernel wrote a sockaddr_in, and the storage is larger and as aligned.
            let v4 = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in>() };
            let address = Ipv4Addr::from_bits(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddrV4::new(address, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above, for a sockaddr_in6.
            let v6 = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in6>() };
            let address = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(address, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}
