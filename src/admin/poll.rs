//! Asking our own `/health`: how busy the machine is, seen from inside.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use crate::metrics::{Registry, names};

const PERIOD: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(3);
/// A local request this slow is worth a word.
const SLOW: Duration = Duration::from_secs(1);

/// Asks once a second, until the task is aborted.
pub async fn health(listener: SocketAddr, registry: Registry) {
    let durations = registry.histogram(&names::HEALTH_REQUEST_DURATION, []);
    let failures = registry.counter(&names::HEALTH_REQUEST_FAILURES, []);
    let address = reachable(listener);
    let mut ticks = interval_at(Instant::now() + PERIOD, PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        ticks.tick().await;
        let start = Instant::now();
        let asked = timeout(TIMEOUT, ask(address)).await;
        let elapsed = start.elapsed();
        durations.observe(elapsed);
        match asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(()) => {
                failing = false;
                if elapsed > SLOW {
                    tracing::warn!("admin: http://{address}/health took {elapsed:.1?}");
                }
            }
            Err(error) => {
                failures.inc();
                if !failing {
                    tracing::warn!("admin: http://{address}/health failed: {error}");
                }
                failing = true;
            }
        }
    }
}

/// A listener on all addresses is asked over the loopback.
fn reachable(listener: SocketAddr) -> SocketAddr {
    let mut address = listener;
    if listener.ip().is_unspecified() {
        address.set_ip(match listener {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    address
}

async fn ask(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(256);
    stream.take(4096).read_to_end(&mut answer).await?;
    if answer.starts_with(b"HTTP/1.1 200 ") { Ok(()) } else { Err(io::Error::other("not 200")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcard_listeners_are_asked_over_the_loopback() {
        for (listener, address) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:8080", "[::1]:8080"),
            ("169.254.20.10:8080", "169.254.20.10:8080"),
        ] {
            let listener = listener.parse().unwrap();
            assert_eq!(reachable(listener), address.parse().unwrap());
        }
    }
}
