//! Loopback addresses of one's own.

#![allow(dead_code, reason = "each suite uses its own part")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// Where tests serve DNS: below the ephemeral ports, so that no client socket is in the way.
pub const DNS_PORT: u16 = 5300;

/// An address of 127.0.0.0/8 that no other test uses: two octets from the process id, one from a
/// count.
pub fn fresh() -> IpAddr {
    static COUNT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(127, high | 0x80, low, COUNT.fetch_add(1, Relaxed)))
}

/// A fresh address with the port of DNS.
pub fn fresh_dns() -> SocketAddr {
    (fresh(), DNS_PORT).into()
}

/// A port of `ip` that was free a moment ago, for UDP and for TCP.
pub fn free_port(ip: IpAddr) -> u16 {
    loop {
        let tcp = TcpListener::bind((ip, 0)).unwrap();
        let port = tcp.local_addr().unwrap().port();
        if UdpSocket::bind((ip, port)).is_ok() {
            return port;
        }
    }
}
