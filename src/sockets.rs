//! Every socket of the process, bound in one place and handed to whoever serves.
//!
//! Addresses are bound before they exist on the node (`IP_FREEBIND`), so that the link, the rules
//! and a later process can come and go without a query finding the port closed.

mod open;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::sockopt;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// What a socket is for; together with address and index it names the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// DNS over UDP.
    DnsUdp,
    /// DNS over TCP.
    DnsTcp,
    /// HTTP: metrics, health, readiness.
    Http,
}

/// One socket to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Listen {
    /// What for.
    pub role: Role,
    /// Where.
    pub address: SocketAddr,
    /// Which of several on the same address.
    pub index: usize,
}

/// A socket that could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {} {}: {}", .listen.role.protocol(), .listen.address, explain(.listen, .source))]
pub struct BindError {
    /// Which one.
    pub listen: Listen,
    /// What the kernel said.
    pub source: io::Error,
}

/// Receive buffer asked for on UDP sockets: at 200 000 queries/s, 20 ms of them. The kernel grants at
/// most `net.core.rmem_max`.
const UDP_RECEIVE_BUFFER: usize = 4 << 20;
/// Connections waiting to be accepted; the kernel grants at most `net.core.somaxconn`.
const BACKLOG: i32 = 1024;

/// The bound sockets by name.
#[derive(Debug, Default)]
pub struct Sockets {
    udp: BTreeMap<Listen, UdpSocket>,
    tcp: BTreeMap<Listen, TcpListener>,
}

impl Role {
    /// `udp` or `tcp`.
    pub fn protocol(self) -> &'static str {
        match self {
            Role::DnsUdp => "udp",
            Role::DnsTcp | Role::Http => "tcp",
        }
    }
}

impl Sockets {
    /// Binds what is `wanted` and not yet there. Sockets that are there stay as they are.
    ///
    /// Either every one of them is bound, or none is added and each failure is reported. Port 0
    /// cannot be asked for: names would not be unique.
    pub fn bind(&mut self, wanted: &[Listen]) -> Result<(), Vec<BindError>> {
        let mut added = Sockets::default();
        let mut errors = Vec::new();
        for &listen in wanted.iter().filter(|listen| !self.has(listen)) {
            if let Err(source) = added.bind_one(listen) {
                errors.push(BindError { listen, source });
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        self.udp.append(&mut added.udp);
        self.tcp.append(&mut added.tcp);
        Ok(())
    }

    /// Takes what another process had bound. Of two of one name the one that is there stays.
    pub fn adopt(&mut self, sockets: Vec<(Listen, OwnedFd)>) {
        for (listen, socket) in
            sockets.into_iter().filter(|(listen, _)| !self.has(listen)).collect::<Vec<_>>()
        {
            match listen.role {
                Role::DnsUdp => drop(self.udp.insert(listen, socket.into())),
                Role::DnsTcp | Role::Http => drop(self.tcp.insert(listen, socket.into())),
            }
        }
    }

    /// Files of the sockets `listens`, for another process.
    pub fn share(&self, listens: &[Listen]) -> io::Result<Vec<(Listen, OwnedFd)>> {
        let file = |listen: &Listen| match listen.role {
            Role::DnsUdp => self.udp(listen).map(OwnedFd::from),
            Role::DnsTcp | Role::Http => self.tcp(listen).map(OwnedFd::from),
        };
        listens.iter().map(|listen| Ok((*listen, file(listen)?))).collect()
    }

    /// All that are bound.
    pub fn listens(&self) -> Vec<Listen> {
        self.udp.keys().chain(self.tcp.keys()).copied().collect()
    }

    /// Closes what is not `wanted` any more. What waits in a UDP socket is for another process that has
    /// it to read; nothing more comes in.
    pub fn retain(&mut self, wanted: &[Listen]) {
        for (_, socket) in self.udp.iter().filter(|(listen, _)| !wanted.contains(listen)) {
            turn_away(socket);
        }
        self.udp.retain(|listen, _| wanted.contains(listen));
        self.tcp.retain(|listen, _| wanted.contains(listen));
    }

    /// The addresses at which somebody else has a UDP socket on `port`. Where there is one here, too, with
    /// `SO_REUSEPORT` on both and one user for both, the kernel deals queries out between them.
    pub fn elsewhere(&self, port: u16) -> Vec<IpAddr> {
        let inode = |socket: &UdpSocket| rustix::fs::fstat(socket.as_fd()).ok().map(|status| status.st_ino);
        let ours: Vec<u64> = self.udp.values().filter_map(inode).collect();
        let mut open = open::udp();
        open.retain(|socket| socket.address.port() == port && !ours.contains(&socket.inode));
        open.iter().map(|socket| socket.address.ip().to_canonical()).collect()
    }

    fn has(&self, listen: &Listen) -> bool {
        self.udp.contains_key(listen) || self.tcp.contains_key(listen)
    }

    fn bind_one(&mut self, listen: Listen) -> io::Result<()> {
        match listen.role {
            Role::DnsUdp => self.udp.insert(listen, bind_udp(listen.address)?).map(drop),
            Role::DnsTcp | Role::Http => self.tcp.insert(listen, bind_tcp(listen.address)?).map(drop),
        };
        Ok(())
    }

    /// A handle to the UDP socket `listen`.
    pub fn udp(&self, listen: &Listen) -> io::Result<UdpSocket> {
        self.udp.get(listen).ok_or(io::ErrorKind::NotFound)?.try_clone()
    }

    /// A handle to the listening TCP socket `listen`.
    pub fn tcp(&self, listen: &Listen) -> io::Result<TcpListener> {
        self.tcp.get(listen).ok_or(io::ErrorKind::NotFound)?.try_clone()
    }
}

/// Whether there is any point in listening on `address`. What names no address means both wildcards;
/// on a kernel without IPv6 (`ipv6.disable=1`) it means the one there is.
pub fn is_supported(address: &SocketAddr) -> bool {
    let optional = address.is_ipv6() && address.ip().is_unspecified();
    !optional || std::path::Path::new("/proc/net/if_inet6").exists()
}

/// Takes `socket` out of the choice that the kernel has among those of its address: connected, it is
/// for datagrams from its peer alone, and its peer is itself.
fn turn_away(socket: &UdpSocket) {
    // An address that is gone gets no datagrams either.
    let _ = socket.local_addr().and_then(|own| socket.connect(own));
}

fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = new_socket(address, Type::DGRAM, Protocol::UDP)?;
    // Best effort: a smaller buffer only means less room for bursts. Beyond the kernel's usual limit
    // takes CAP_NET_ADMIN.
    if sockopt::set_socket_recv_buffer_size_force(&socket, UDP_RECEIVE_BUFFER).is_err() {
        let _ = socket.set_recv_buffer_size(UDP_RECEIVE_BUFFER);
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = new_socket(address, Type::STREAM, Protocol::TCP)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn new_socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    let options = SockRef::from(&socket);
    options.set_reuse_port(true)?;
    options.set_reuse_address(kind == Type::STREAM)?;
    match address.ip() {
        IpAddr::V4(_) => options.set_freebind_v4(true)?,
        IpAddr::V6(_) => {
            options.set_only_v6(true)?;
            options.set_freebind_v6(true)?;
        }
    }
    Ok(socket)
}

/// What the kernel said, and what to do about it. The C libraries word a taken port differently, so that is
/// worded here.
fn explain(listen: &Listen, error: &io::Error) -> String {
    let port = listen.address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "address already in use; another server holds the port, `ss -lnp{} 'sport = :{port}'` shows which",
            if listen.role == Role::DnsUdp { "u" } else { "t" },
        ),
        io::ErrorKind::PermissionDenied => format!(
            "{error}; ports below 1024 need CAP_NET_BIND_SERVICE: run as root, add the capability, or use \
             -dns.port with a port above 1023 instead of {port}"
        ),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(role: Role, address: SocketAddr) -> Listen {
        Listen { role, address, index: 0 }
    }

    /// A loopback port that was free a moment ago.
    fn free_port() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    #[test]
    fn an_address_that_is_not_there_yet_can_be_bound() {
        let address = SocketAddr::new("169.254.77.7".parse().unwrap(), free_port().port());
        let wanted = [listen(Role::DnsUdp, address), listen(Role::DnsTcp, address)];
        Sockets::default().bind(&wanted).unwrap();
    }

    #[test]
    fn a_taken_port_is_named_and_nothing_is_kept() {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let wanted = [listen(Role::DnsTcp, free_port()), listen(Role::DnsUdp, taken.local_addr().unwrap())];
        let mut sockets = Sockets::default();
        let errors = sockets.bind(&wanted).unwrap_err();
        assert_eq!(errors.len(), 1);
        assert!(errors[0].to_string().contains("another server holds the port"), "{}", errors[0]);
        assert!(sockets.tcp.is_empty());
    }

    #[test]
    fn a_socket_of_somebody_else_is_told_from_our_own() {
        let address = free_port();
        let mut sockets = Sockets::default();
        sockets.bind(&[listen(Role::DnsUdp, address)]).unwrap();
        let nobody: [IpAddr; 0] = [];
        assert_eq!(sockets.elsewhere(address.port()), nobody);
        let others = bind_udp(address).unwrap();
        assert_eq!(sockets.elsewhere(address.port()), [address.ip()]);
        drop(others);
        assert_eq!(sockets.elsewhere(address.port()), nobody);
    }

    #[test]
    fn what_is_bound_stays_and_what_is_not_wanted_goes() {
        let (kept, gone) = (listen(Role::Http, free_port()), listen(Role::DnsUdp, free_port()));
        let mut sockets = Sockets::default();
        sockets.bind(&[kept, gone]).unwrap();
        sockets.bind(&[kept]).unwrap();
        sockets.retain(&[kept]);
        assert!(sockets.tcp(&kept).is_ok());
        assert!(sockets.udp(&gone).is_err());
    }
}
