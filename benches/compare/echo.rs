//! The floor: a server that sends every datagram back with its QR bit set, and does nothing else.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use crate::datagrams::Datagrams;

/// Serves `address` until it is killed, `batch` datagrams to a system call at most.
pub fn serve(address: SocketAddr, batch: usize) -> io::Result<()> {
    let socket = UdpSocket::bind(address)?;
    // Only root may have more than net.core.rmem_max; what it then holds is enough here.
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 8 << 20);
    let mut datagrams = Datagrams::with_peers();
    loop {
        let received = datagrams.receive_up_to(&socket, batch)?;
        for slot in 0..received {
            if let Some(flags) = datagrams.datagram(slot).get_mut(2) {
                *flags |= 0x80;
            }
        }
        let mut sent = 0;
        while sent < received {
            // One that the kernel refuses is lost, as in any server.
            sent += datagrams.send(&socket, sent, received).unwrap_or(1);
        }
    }
}
