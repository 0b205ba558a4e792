//! A pod on a node: a namespace behind a veth whose host side is in the caller's.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use crate::common::netns::{Namespace, eventually, own_path, run, unspecified};

/// A pod with an address of each family, reachable from the caller's namespace, which is the node.
pub struct Pod {
    namespace: Namespace,
    /// The veth on the node.
    pub link: String,
    number: u8,
}

impl Pod {
    /// The pod `number` of the ranges 10.244.0.0/24 and fd00:244::/64; its link is called `podN`.
    pub fn start(number: u8) -> Pod {
        let node = own_path();
        let namespace = Namespace::start();
        let (v4, v6) = (format!("10.244.0.{}", 10 + number), format!("fd00:244::{}", 10 + number));
        let link = format!("pod{number}");
        let make = format!(
            "nsenter --net={node} ip link add {link} type veth peer name eth0 netns $$
             ip addr add {v4}/32 dev eth0; ip addr add {v6}/128 dev eth0 nodad
             ip link set eth0 up
             ip route add 169.254.1.1 dev eth0; ip route add default via 169.254.1.1
             ip -6 route add fe80::1 dev eth0; ip -6 route add default via fe80::1 dev eth0"
        );
        // The name of the pod's namespace for `ip` is the shell's process in it.
        namespace.run(move || run(&make));
        run(&format!(
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
             ip addr add 169.254.1.1/32 dev {link}; ip addr add fe80::1/64 dev {link} nodad
             ip link set {link} up; ip route add {v4} dev {link}; ip -6 route add {v6} dev {link}"
        ));
        Pod { namespace, link, number }
    }

    /// Puts its link on a new bridge, as the bridge plugin has it; the node's addresses go there.
    pub fn on_bridge(self) -> Pod {
        let link = &self.link;
        run(&format!(
            "ip link add cni0 type bridge; ip link set cni0 up
             ip addr del 169.254.1.1/32 dev {link}; ip addr del fe80::1/64 dev {link}
             ip route flush dev {link}; ip -6 route flush dev {link}; ip link set {link} master cni0
             ip addr add 169.254.1.1/32 dev cni0; ip addr add fe80::1/64 dev cni0 nodad
             ip route add {} dev cni0; ip -6 route add {} dev cni0",
            self.v4(),
            self.v6()
        ));
        self
    }

    /// Its IPv4 address.
    pub fn v4(&self) -> IpAddr {
        IpAddr::from([10, 244, 0, 10 + self.number])
    }

    /// Its IPv6 address.
    pub fn v6(&self) -> IpAddr {
        format!("fd00:244::{}", 10 + self.number).parse().unwrap()
    }

    /// Runs `job` in the pod.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        self.namespace.run(job)
    }

    /// Whether a datagram to `server` is answered from there.
    pub fn asks(&self, server: IpAddr) -> bool {
        self.run(move || asks(server))
    }

    /// Waits until `server` is reached: neighbours and IPv6 routes take a moment.
    pub fn reaches(&self, server: IpAddr) {
        eventually(|| self.asks(server));
    }
}

/// Whether a datagram to port 53 of `server`, from the caller's namespace, is answered from there.
pub fn asks(server: IpAddr) -> bool {
    let client = UdpSocket::bind((unspecified(server), 0)).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let sent = client.send_to(b"query", (server, 53));
    sent.is_ok() && client.recv_from(&mut [0; 64]).is_ok_and(|(_, peer)| peer.ip() == server)
}

/// Answers whatever comes to port 53 of `address` in the caller's namespace, until the end.
pub fn serve(address: IpAddr) {
    let socket = UdpSocket::bind((address, 53)).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            if &buffer[..length] == b"end" {
                return;
            }
            let _ = socket.send_to(&buffer[..length], peer);
        }
    });
}
