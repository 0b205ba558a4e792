//! Datagrams by the batch, for the echo, the relay and the load client.
//!
//! Not the server's own batch: a floor made of what it is to measure would sink with it.

#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::ptr;

/// Datagrams per system call.
pub const SLOTS: usize = 64;
/// Octets of one; no message here is longer.
const OCTETS: usize = 4096;

/// Where a datagram came from.
#[derive(Clone, Copy)]
pub struct Peer(libc::sockaddr_storage, libc::socklen_t);

/// Slots for datagrams. The kernel sees pointers into them only during a call made here.
pub struct Datagrams {
    headers: Vec<libc::mmsghdr>,
    iovecs: Vec<libc::iovec>,
    buffers: Vec<[u8; OCTETS]>,
    peers: Vec<libc::sockaddr_storage>,
    /// Slots whose lengths the last calls changed.
    dirty: usize,
}

impl Datagrams {
    /// For a connected socket.
    pub fn connected() -> Datagrams {
        Datagrams::new(false)
    }

    /// For a socket that hears from many; a received datagram's slot is sent back to where it came from.
    pub fn with_peers() -> Datagrams {
        Datagrams::new(true)
    }

    fn new(with_peers: bool) -> Datagrams {
        let mut buffers = vec![[0; OCTETS]; SLOTS];
        let buffer =
            |buffer: &mut [u8; OCTETS]| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: OCTETS };
        let mut iovecs: Vec<libc::iovec> = buffers.iter_mut().map(buffer).collect();
        // SAFETY: zero octets are a valid sockaddr_storage, and a valid mmsghdr.
        let (mut peers, mut headers) = unsafe {
            (
                vec![mem::zeroed::<libc::sockaddr_storage>(); SLOTS],
                vec![mem::zeroed::<libc::mmsghdr>(); SLOTS],
            )
        };
        for ((header, iovec), peer) in headers.iter_mut().zip(&mut iovecs).zip(&mut peers) {
            header.msg_hdr.msg_iov = ptr::from_mut(iovec);
            header.msg_hdr.msg_iovlen = 1;
            if with_peers {
                header.msg_hdr.msg_name = ptr::from_mut(peer).cast();
                header.msg_hdr.msg_namelen = PEER;
            }
        }
        Datagrams { headers, iovecs, buffers, peers, dirty: 0 }
    }

    /// Takes what is there, up to [`SLOTS`]; waits for the first one only if the socket blocks.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.receive_up_to(socket, SLOTS)
    }

    /// The same, but no more than `most`.
    pub fn receive_up_to(&mut self, socket: &UdpSocket, most: usize) -> io::Result<usize> {
        let most = most.min(SLOTS);
        for slot in 0..self.dirty {
            self.iovecs[slot].iov_len = OCTETS;
            if !self.headers[slot].msg_hdr.msg_name.is_null() {
                self.headers[slot].msg_hdr.msg_namelen = PEER;
            }
        }
        self.dirty = 0;
        let flags = libc::MSG_WAITFORONE;
        // SAFETY: SLOTS headers point at iovecs, buffers and peers that this value owns and does not
        // move or touch until the call returns.
        let received = unsafe {
            let headers = self.headers.as_mut_ptr();
            let forever = ptr::null_mut::<libc::timespec>();
            libc::syscall(libc::SYS_recvmmsg, socket.as_raw_fd(), headers, most, flags, forever)
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        for slot in 0..received {
            self.iovecs[slot].iov_len = (self.headers[slot].msg_len as usize).min(OCTETS);
        }
        self.dirty = received;
        Ok(received)
    }

    /// The datagram in `slot`.
    pub fn datagram(&mut self, slot: usize) -> &mut [u8] {
        &mut self.buffers[slot][..self.iovecs[slot].iov_len]
    }

    /// Room for a datagram in `slot`.
    pub fn room(&mut self, slot: usize) -> &mut [u8] {
        &mut self.buffers[slot]
    }

    /// The first `len` octets of the room in `slot` are a datagram.
    pub fn fill(&mut self, slot: usize, len: usize) {
        self.iovecs[slot].iov_len = len.min(OCTETS);
        self.dirty = self.dirty.max(slot + 1);
    }

    /// Where the datagram in `slot` came from.
    pub fn peer(&self, slot: usize) -> Peer {
        Peer(self.peers[slot], self.headers[slot].msg_hdr.msg_namelen)
    }

    /// The first `len` octets of the room in `slot` are a datagram for `peer`.
    pub fn fill_for(&mut self, slot: usize, len: usize, peer: Peer) {
        self.peers[slot] = peer.0;
        self.headers[slot].msg_hdr.msg_namelen = peer.1;
        self.fill(slot, len);
    }

    /// Sends slots `start..end` and says how many the kernel took in one call.
    pub fn send(&mut self, socket: &UdpSocket, start: usize, end: usize) -> io::Result<usize> {
        let headers = &mut self.headers[start..end];
        // Not by the C library: musl's is a loop over `sendmsg`.
        // SAFETY: as in `receive`; the kernel only reads through the pointers.
        let sent = unsafe {
            libc::syscall(libc::SYS_sendmmsg, socket.as_raw_fd(), headers.as_mut_ptr(), headers.len(), 0)
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

const PEER: libc::socklen_t = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
