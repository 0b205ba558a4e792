//! A node with Doorstep, two upstreams at the end of a cable, and what can go wrong with them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::fault::{Fault, Switch};
use super::netns::{Namespace, own_path, run};
use super::scripted::Scripted;
use super::server::Doorstep;

/// Where Doorstep serves.
pub const NODE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), super::loopback::DNS_PORT);
pub const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const HOSTS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 53, 0, 1), Ipv4Addr::new(10, 53, 0, 2)];
const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// How long a restart takes.
const RESTART: Duration = Duration::from_secs(1);

/// How Doorstep knows the upstreams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Setting {
    /// Two of them, over TCP.
    TwoTcp,
    /// Two of them, over UDP.
    TwoUdp,
    /// One Service address, over TCP: the kernel hands each new connection to a backend in turn.
    VipTcp,
}

impl Setting {
    pub const ALL: [Setting; 3] = [Setting::TwoTcp, Setting::TwoUdp, Setting::VipTcp];

    pub fn name(self) -> &'static str {
        match self {
            Setting::TwoTcp => "A tcp",
            Setting::TwoUdp => "A udp",
            Setting::VipTcp => "B tcp",
        }
    }

    fn is_udp(self) -> bool {
        self == Setting::TwoUdp
    }

    /// Whether `fault` can happen in it.
    pub fn knows(self, fault: Fault) -> bool {
        !self.is_udp() || fault.concerns_udp()
    }

    fn forward(self) -> String {
        let to = match self {
            Setting::VipTcp => VIP.to_string(),
            _ => format!("{} {}", HOSTS[0], HOSTS[1]),
        };
        let transport = if self.is_udp() { "prefer_udp" } else { "force_tcp" };
        format!("forward . {to} {{\n {transport}\n expire 1m\n }}")
    }
}

/// See the [module](self). To be made on a thread in a namespace of its own.
pub struct Rig {
    pub setting: Setting,
    pub doorstep: Doorstep,
    hosts: Namespace,
    upstreams: [Option<Scripted>; 2],
    switches: [Switch; 2],
    /// Queries that reached upstreams that are no more.
    before: Vec<(usize, String)>,
    /// Since when each is gone.
    gone: [Option<Duration>; 2],
}

impl Rig {
    pub fn new(setting: Setting) -> Rig {
        let hosts = cable();
        if setting == Setting::VipTcp {
            publish();
        }
        let switches = [Fault::Healthy; 2].map(Switch::new);
        let upstreams = [0, 1].map(|index| Some(start(&hosts, index, &switches[index])));
        let text = format!(". {{\n bind {}\n errors\n cache\n {}\n}}\n", NODE.ip(), setting.forward());
        let doorstep = Doorstep::start(NODE.ip(), &text);
        Rig { setting, doorstep, hosts, upstreams, switches, before: Vec::new(), gone: [None; 2] }
    }

    /// Lets `fault` happen to an upstream.
    pub fn inflict(&mut self, index: usize, fault: Fault, now: Duration) {
        self.switches[index].set(fault);
        let host = HOSTS[index];
        match fault {
            // At the far end: the sender of a packet that its own kernel drops is told so.
            Fault::Blackhole => self.hosts.run(move || {
                run("nft add table ip hole");
                run("nft 'add chain ip hole in { type filter hook prerouting priority -300; }'");
                run(&format!("nft add rule ip hole in ip daddr {host} drop"));
            }),
            Fault::PowerOff => self.hosts.run(move || drop(run(&format!("ip addr del {host}/32 dev eth0")))),
            Fault::Restart => {
                let upstream = self.upstreams[index].take().unwrap();
                self.before.extend(upstream.asked().into_iter().map(|asked| (index, asked.name)));
                self.gone[index] = Some(now);
            }
            _ => {}
        }
    }

    /// Brings restarting upstreams back when it is time.
    pub fn attend(&mut self, now: Duration) {
        for index in 0..HOSTS.len() {
            if self.gone[index].is_some_and(|gone| now > gone + RESTART) {
                self.gone[index] = None;
                self.upstreams[index] = Some(start(&self.hosts, index, &self.switches[index]));
            }
        }
    }

    /// How often each name was asked for, by upstream as Doorstep knows them.
    pub fn attempts(&self) -> HashMap<(usize, String), usize> {
        let mut attempts = HashMap::new();
        let running = self.upstreams.iter().enumerate().filter_map(|(index, upstream)| {
            let asked = upstream.as_ref()?.asked();
            Some(asked.into_iter().map(move |asked| (index, asked.name)))
        });
        for (index, name) in running.flatten().chain(self.before.iter().cloned()) {
            let upstream = if self.setting == Setting::VipTcp { 0 } else { index };
            *attempts.entry((upstream, name)).or_default() += 1;
        }
        attempts
    }
}

fn start(hosts: &Namespace, index: usize, switch: &Switch) -> Scripted {
    let (switch, address) = (switch.clone(), SocketAddr::from((HOSTS[index], 53)));
    hosts.run(move || Scripted::start_at(address, move |asked| switch.get().steps(asked)))
}

/// A namespace with the hosts' addresses, connected to the calling thread's.
fn cable() -> Namespace {
    let (node, hosts) = (own_path(), Namespace::start());
    hosts.run(move || {
        run(&format!("ip link add eth0 type veth peer name eth0 netns {node}"));
        run("ip addr add 10.53.0.253/24 dev eth0 && ip link set eth0 up");
        for host in HOSTS {
            run(&format!("ip addr add {host}/32 dev eth0"));
        }
    });
    run("ip addr add 10.53.0.254/24 dev eth0 && ip link set eth0 up");
    hosts
}

/// Makes the hosts the backends of a Service, as kube-proxy does for clients on the node.
fn publish() {
    run(&format!("ip route add {VIP} via {}", HOSTS[1]));
    run("nft add table ip service");
    run("nft 'add chain ip service out { type nat hook output priority -100; }'");
    let [first, second] = HOSTS;
    run(&format!(
        "nft 'add rule ip service out ip daddr {VIP} dnat to numgen inc mod 2 map {{ 0 : {first}, 1 : {second} }}'"
    ));
}
