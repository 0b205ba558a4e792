//! The kernel's list of UDP sockets in this network namespace.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A UDP socket that takes datagrams from everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    /// Where it listens.
    pub address: SocketAddr,
    /// By which its process's descriptors of it are known.
    pub inode: u64,
}

/// All of them; what cannot be read counts as none.
pub fn udp() -> Vec<Open> {
    // Of the thread, for which another namespace than the process's may hold.
    let tables = ["/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"];
    let texts = tables.map(|path| std::fs::read_to_string(path).unwrap_or_default());
    texts.iter().flat_map(|text| text.lines().filter_map(parse)).collect()
}

/// One line of the list, unless the socket is connected: then it is for its peer alone.
fn parse(line: &str) -> Option<Open> {
    let mut fields = line.split_whitespace().skip(1);
    let own = address(fields.next()?)?;
    let peer = address(fields.next()?)?;
    let inode = fields.nth(6)?.parse().ok()?;
    (peer.port() == 0).then_some(Open { address: own, inode })
}

/// Words of 32 bits in hexadecimal, each as this machine would print the octets of the address, then the port.
fn address(field: &str) -> Option<SocketAddr> {
    let (words, port) = field.split_once(':')?;
    let word = |at: usize| u32::from_str_radix(words.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = match words.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let octets = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn open_sockets_are_listed_and_connected_ones_are_not() {
        for ip in ["127.0.0.1", "::1"] {
            let socket = UdpSocket::bind((ip.parse::<IpAddr>().unwrap(), 0)).unwrap();
            let own = socket.local_addr().unwrap();
            let is_listed = || udp().iter().any(|open| open.address == own);
            assert!(is_listed(), "{own}");
            socket.connect(own).unwrap();
            assert!(!is_listed(), "{own}");
        }
    }

    #[test]
    fn what_is_no_socket_is_passed_over() {
        let head = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid";
        for line in ["", "1:", head, "1: 0100007F:0035 00000000:0000", "1: 0100:0035 0000:0000 0 0 0 0 0 0 1"]
        {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
