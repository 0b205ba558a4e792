//! A TCP connection, passed through.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::Builder;
use std::time::Duration;

/// Connections at most; one more is closed at once.
const CONNECTIONS: usize = 32;
const CONNECT: Duration = Duration::from_secs(2);
/// A connection without traffic for this long ends.
const IDLE: Duration = Duration::from_secs(10);
const STACK: usize = 64 * 1024;

/// Joins `client` and `upstream` until one of them is done; counts itself in `open`.
pub fn join(client: TcpStream, upstream: SocketAddr, open: &Arc<AtomicUsize>) {
    let place = Place::take(open);
    if place.0.load(Relaxed) > CONNECTIONS {
        return;
    }
    // Without a thread the client is turned away, and asks again.
    let _ = Builder::new().name("relay-tcp".into()).stack_size(STACK).spawn(move || {
        let _place = place;
        if let Err(error) = converse(&client, upstream) {
            tracing::debug!("relay: {upstream}: {error}");
        }
    });
}

struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Place {
        open.fetch_add(1, Relaxed);
        Place(open.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

fn converse(client: &TcpStream, upstream: SocketAddr) -> io::Result<()> {
    let upstream = TcpStream::connect_timeout(&upstream, CONNECT)?;
    for stream in [client, &upstream] {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(IDLE))?;
        stream.set_write_timeout(Some(IDLE))?;
    }
    let (mut from_client, mut to_upstream) = (client.try_clone()?, upstream.try_clone()?);
    let there = Builder::new().name("relay-tcp".into()).stack_size(STACK).spawn(move || {
        let copied = io::copy(&mut from_client, &mut to_upstream);
        let _ = to_upstream.shutdown(Shutdown::Write);
        copied
    })?;
    let back = io::copy(&mut &upstream, &mut &*client);
    // Whatever way this ended, the other direction has nobody left to talk to.
    let _ = client.shutdown(Shutdown::Both);
    let _ = upstream.shutdown(Shutdown::Both);
    let _ = there.join();
    back.map(drop)
}
