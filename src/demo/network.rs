//! Links, addresses and routes of the cluster, through rtnetlink.
//!
//! ```text
//! pod  10.244.0.11 eth0 ── veth-pod  [cni0 10.244.0.1] node [172.18.0.2] veth-dns ── eth0 10.244.1.11 kube-dns
//! pod2 10.244.0.12 eth0 ── veth-pod2 [               ]                                    10.244.1.12
//!                                                                                         10.244.1.13
//! ```

use std::fs;
use std::future::Future;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkMessage, State};
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::{DemoError, Namespace};

/// The node, outside the pods' network as nodes are.
pub const NODE: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 2);
/// The node's address on the pods' bridge.
pub const BRIDGE: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
/// The pod.
pub const POD: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 11);
/// Another pod of the node.
pub const POD2: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 12);
/// A pod of kube-dns, behind the node as if it were on another one.
pub const KUBE_DNS: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 11);
/// Every address where kube-dns answers.
pub const KUBE_DNS_PODS: [Ipv4Addr; 3] =
    [KUBE_DNS, Ipv4Addr::new(10, 244, 1, 12), Ipv4Addr::new(10, 244, 1, 13)];
/// ClusterIP of `kube-dns`.
pub const KUBE_DNS_VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// ClusterIP of `kube-dns-upstream`.
pub const UPSTREAM_VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 11);
/// NodeLocal DNSCache's link-local address.
pub const NODE_LOCAL: Ipv4Addr = Ipv4Addr::new(169, 254, 20, 10);

/// The node's ends of the pods' links.
const POD_LINKS: [&str; 2] = ["veth-pod", "veth-pod2"];
/// Prefix length of the pods' subnet of one node.
const SUBNET: u8 = 24;
/// Prefix length of a lone address.
const HOST: u8 = 32;

/// The longest wait for links to carry packets; the demonstration shows what is wrong if they do not.
const ACTIVATION: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(5);

/// Joins the namespaces as the picture above shows, with forwarding on in the node.
pub(super) fn connect(
    node: &Namespace,
    pods: [&Namespace; 2],
    kube_dns: &Namespace,
) -> Result<(), DemoError> {
    let (pod_fds, kube_dns_fd) = (pods.map(Namespace::raw_fd), kube_dns.raw_fd());
    configure(node, async move |links| {
        links.up("lo").await?;
        links.add(LinkBridge::new("cni0").build(), "cni0").await?;
        links.address("cni0", BRIDGE, SUBNET).await?;
        links.up("cni0").await?;
        for (name, fd) in POD_LINKS.into_iter().zip(pod_fds) {
            links.add(veth(name, fd), name).await?;
            links.attach(name, "cni0").await?;
            links.up(name).await?;
        }
        links.add(veth("veth-dns", kube_dns_fd), "veth-dns").await?;
        links.address("veth-dns", NODE, HOST).await?;
        links.up("veth-dns").await?;
        for address in KUBE_DNS_PODS {
            links.neighbour_route(address, "veth-dns").await?;
        }
        // A query of the node itself to a ClusterIP is routed before the OUTPUT hook rewrites it;
        // without any route it would end in ENETUNREACH.
        links.default_route(KUBE_DNS).await
    })?;
    for (pod, address) in pods.into_iter().zip([POD, POD2]) {
        configure(pod, async move |links| {
            links.up("lo").await?;
            links.address("eth0", address, SUBNET).await?;
            links.up("eth0").await?;
            links.default_route(BRIDGE).await
        })?;
    }
    configure(kube_dns, async |links| {
        links.up("lo").await?;
        for address in KUBE_DNS_PODS {
            links.address("eth0", address, HOST).await?;
        }
        links.up("eth0").await?;
        links.neighbour_route(NODE, "eth0").await?;
        links.default_route(NODE).await
    })?;
    configure(node, async |links| links.carry(&["cni0", POD_LINKS[0], POD_LINKS[1], "veth-dns"]).await)?;
    for namespace in [pods[0], pods[1], kube_dns] {
        configure(namespace, async |links| links.carry(&["eth0"]).await)?;
    }
    node.run(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1"))?
        .map_err(DemoError::io("switch IP forwarding on"))
}

/// A veth pair whose other end is `eth0` in the namespace behind the descriptor.
fn veth(name: &str, peer_namespace: i32) -> LinkMessage {
    let peer = LinkMessageBuilder::<LinkUnspec>::new().name("eth0").setns_by_fd(peer_namespace).build();
    LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(name)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build()
}

/// Runs `steps` inside the namespace, on a netlink socket that belongs to it.
fn configure<F>(namespace: &Namespace, steps: impl FnOnce(Links) -> F + Send) -> Result<(), DemoError>
where
    F: Future<Output = Result<(), DemoError>>,
{
    let open = DemoError::io("open a netlink socket");
    namespace.run(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match runtime {
            Ok(runtime) => runtime.block_on(async {
                let (connection, handle, _) = rtnetlink::new_connection().map_err(open)?;
                tokio::spawn(connection);
                steps(Links(handle)).await
            }),
            Err(error) => Err(open(error)),
        }
    })?
}

/// One namespace's links, by name.
struct Links(Handle);

impl Links {
    async fn add(&self, link: LinkMessage, name: &str) -> Result<(), DemoError> {
        let added = self.0.link().add(link).execute().await;
        added.map_err(refused(format!("add link {name}")))
    }

    async fn up(&self, name: &str) -> Result<(), DemoError> {
        let link = LinkUnspec::new_with_name(name).up().build();
        let changed = self.0.link().set(link).execute().await;
        changed.map_err(refused(format!("bring {name} up")))
    }

    async fn attach(&self, name: &str, bridge: &str) -> Result<(), DemoError> {
        let bridge = self.index(bridge).await?;
        let link = LinkUnspec::new_with_name(name).controller(bridge).build();
        let changed = self.0.link().set(link).execute().await;
        changed.map_err(refused(format!("attach {name} to the bridge")))
    }

    async fn address(&self, name: &str, address: Ipv4Addr, prefix: u8) -> Result<(), DemoError> {
        let index = self.index(name).await?;
        let request = self.0.address().add(index, address.into(), prefix);
        let added = request.execute().await;
        added.map_err(refused(format!("give {address} to {name}")))
    }

    /// A route to one address that is at the other end of the link.
    async fn neighbour_route(&self, address: Ipv4Addr, name: &str) -> Result<(), DemoError> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(address, HOST)
            .output_interface(self.index(name).await?)
            .scope(RouteScope::Link)
            .build();
        let added = self.0.route().add(route).execute().await;
        added.map_err(refused(format!("route to {address} over {name}")))
    }

    async fn default_route(&self, gateway: Ipv4Addr) -> Result<(), DemoError> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build();
        let added = self.0.route().add(route).execute().await;
        added.map_err(refused(format!("route through {gateway}")))
    }

    /// Waits until packets pass. The kernel activates links that came up at most once a second, and
    /// until then drops what is sent on them.
    async fn carry(&self, names: &[&str]) -> Result<(), DemoError> {
        let up = LinkAttribute::OperState(State::Up);
        let deadline = Instant::now() + ACTIVATION;
        for name in names {
            while !self.find(name).await?.attributes.contains(&up) && Instant::now() < deadline {
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    async fn index(&self, name: &str) -> Result<u32, DemoError> {
        Ok(self.find(name).await?.header.index)
    }

    async fn find(&self, name: &str) -> Result<LinkMessage, DemoError> {
        let mut links = self.0.link().get().match_name(name.to_owned()).execute();
        let refused = refused(format!("find link {name}"));
        match links.try_next().await {
            Ok(Some(link)) => Ok(link),
            Ok(None) => Err(refused(rtnetlink::Error::RequestFailed)),
            Err(error) => Err(refused(error)),
        }
    }
}

fn refused(step: String) -> impl FnOnce(rtnetlink::Error) -> DemoError {
    move |source| DemoError::Link { step, source }
}
