//! The probes of `loop`: a question to ourselves that must not come back from the upstream.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};

use super::zones::{Block, LoopGuard};
use crate::metrics::{Registry, names};
use crate::wire::{Name, record_type};

/// Probing ends with the first answer, or after this many tries a second apart.
const TRIES: u32 = 30;
/// How long a probe may take to be answered.
const PATIENCE: Duration = Duration::from_secs(2);

/// A name below `zone` that nobody else will ask for.
pub fn probe_name(zone: &Name, random: u64) -> Option<Name> {
    let suffix = if zone.is_root() { String::new() } else { zone.to_string() };
    Name::from_text(&format!("{}.{}.{suffix}", random >> 32, random & 0xffff_ffff)).ok()
}

/// Asks `address` for the probe of `block` and watches whether it loops.
///
/// CoreDNS ends the process when it does, which leaves the node without DNS. Here only this block
/// stops forwarding, and says so.
pub async fn probe(block: Arc<Block>, zone: Name, address: SocketAddr, registry: Registry) {
    let Some(guard) = &block.loops else { return };
    let gauge = registry.gauge(&names::LOOP_DETECTED, [&zone.to_string()]);
    gauge.set(0);
    for _ in 0..TRIES {
        guard.start_probe();
        let answered = matches!(timeout(PATIENCE, ask(guard, address)).await, Ok(Ok(())));
        if guard.is_looping() {
            gauge.set(1);
            tracing::error!(
                "plugin/loop: zone {zone} sends its queries back to itself through its upstream; it forwards \
                 nothing until the configuration changes. Usual cause: the upstream is /etc/resolv.conf and \
                 that names this server, or systemd-resolved's 127.0.0.53; name the real resolvers instead"
            );
            return;
        }
        if answered {
            return;
        }
        sleep(Duration::from_secs(1)).await;
    }
}

async fn ask(guard: &LoopGuard, address: SocketAddr) -> std::io::Result<()> {
    let reachable = match address {
        SocketAddr::V4(_) if address.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, address.port()).into(),
        SocketAddr::V6(_) if address.ip().is_unspecified() => (Ipv6Addr::LOCALHOST, address.port()).into(),
        concrete => concrete,
    };
    // Bound by connecting: a worker may not `bind`.
    let socket = Socket::new(Domain::for_address(reachable), Type::DGRAM.nonblocking(), None)?;
    socket.connect(&reachable.into())?;
    let socket = UdpSocket::from_std(socket.into())?;
    let mut message = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(guard.probe.as_wire());
    message.extend_from_slice(&record_type::HINFO.to_be_bytes());
    message.extend_from_slice(&[0, 1]);
    socket.send(&message).await?;
    let mut reply = [0; 512];
    socket.recv(&mut reply).await.map(drop)
}
