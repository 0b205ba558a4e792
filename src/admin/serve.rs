//! Accepting connections and carrying requests over them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::http::{self, Parsed, Request, Response};
use super::routes::respond;
use super::{Serves, Sources};

/// Open connections of one listener; more wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 128;
/// To receive one whole request head, idle time before it included: a trickle gains no time.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// To send one whole response.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to let a client read our last response before the socket goes.
const LINGER: Duration = Duration::from_secs(1);
/// Pause after a failed accept: at the limit of descriptors the listener stays readable, and trying
/// again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until the task is aborted; connections accepted by then live on.
pub async fn accept(listener: TcpListener, serves: Serves, sources: Sources) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut failing = false;
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                failing = false;
                let sources = sources.clone();
                tokio::spawn(async move {
                    // The client went away: nobody is left to tell.
                    let _ = connection(stream, serves, &sources).await;
                    drop(slot);
                });
            }
            Err(error) => {
                if !failing {
                    tracing::warn!("admin: cannot accept connections: {error}");
                }
                failing = true;
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection until either side has enough of it.
async fn connection<S>(mut stream: S, serves: Serves, sources: &Sources) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut received = Vec::with_capacity(1024);
    loop {
        let received = timeout(READ_TIMEOUT, receive(&mut stream, &mut received)).await??;
        let (octets, keep_alive) = match received {
            Received::Closed => return Ok(()),
            Received::Refused(response) => (response.encode(false, false), false),
            Received::Request(request) => {
                let response = respond(&request, serves, sources);
                let head_only = request.method == "HEAD";
                let octets = response.encode(head_only, request.keep_alive);
                (octets, request.keep_alive)
            }
        };
        timeout(WRITE_TIMEOUT, stream.write_all(&octets)).await??;
        if !keep_alive {
            return linger(stream).await;
        }
    }
}

enum Received {
    Request(Request),
    Refused(Response),
    Closed,
}

/// Reads up to the end of one request head; what came behind it stays in `received`.
async fn receive<S: AsyncRead + Unpin>(stream: &mut S, received: &mut Vec<u8>) -> io::Result<Received> {
    loop {
        match http::parse(received) {
            Parsed::Request(request, length) => {
                received.drain(..length);
                return Ok(Received::Request(request));
            }
            Parsed::Refused(response) => return Ok(Received::Refused(response)),
            Parsed::Partial => {}
        }
        if (&mut *stream).take(http::MAX_HEAD as u64).read_buf(received).await? == 0 {
            return Ok(Received::Closed);
        }
    }
}

/// Ends our half and reads on for a while: a socket closed with octets unread sends a reset, which
/// would take our response out of the client's hands (RFC 9112 §9.6).
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> io::Result<()> {
    let mut sink = [0; 1024];
    timeout(LINGER, async {
        stream.shutdown().await?;
        while stream.read(&mut sink).await? > 0 {}
        Ok(())
    })
    .await?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Registry;
    use crate::ready::Ready;
    use tokio::time::Instant;

    fn serve() -> (tokio::io::DuplexStream, tokio::task::JoinHandle<io::Result<()>>) {
        let (client, server) = tokio::io::duplex(64 * 1024);
        let serves = Serves { health: true, ..Serves::default() };
        let sources = Sources { registry: Registry::new(), ready: Ready::new() };
        let task = tokio::spawn(async move { connection(server, serves, &sources).await });
        (client, task)
    }

    async fn reply(client: &mut tokio::io::DuplexStream) -> String {
        let mut octets = Vec::new();
        client.read_to_end(&mut octets).await.unwrap();
        String::from_utf8(octets).unwrap()
    }

    const GET: &[u8] = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
    const LAST: &[u8] = b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

    #[tokio::test(start_paused = true)]
    async fn requests_follow_each_other_on_one_connection() {
        let (mut client, task) = serve();
        // Pipelined, and cut in the middle of a head.
        client.write_all(GET).await.unwrap();
        client.write_all(&LAST[..10]).await.unwrap();
        tokio::task::yield_now().await;
        client.write_all(&LAST[10..]).await.unwrap();
        assert_eq!(reply(&mut client).await.matches("200 OK").count(), 2);
        drop(client);
        task.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_gains_no_time() {
        let (mut client, task) = serve();
        let start = Instant::now();
        for octet in GET.iter().take(9) {
            if client.write_all(&[*octet]).await.is_err() {
                break;
            }
            sleep(Duration::from_secs(1)).await;
        }
        assert!(task.await.unwrap().is_err());
        assert!(reply(&mut client).await.is_empty());
        assert_eq!(start.elapsed().as_secs(), 6, "one octet a second, refused after the fifth");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_dropped() {
        let (mut client, server) = tokio::io::duplex(16);
        let sources = Sources { registry: Registry::new(), ready: Ready::new() };
        let serving = async { connection(server, Serves::default(), &sources).await };
        let (served, _) = tokio::join!(serving, async {
            client.write_all(GET).await.unwrap();
        });
        assert_eq!(served.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn an_endless_head_is_refused_and_the_refusal_arrives() {
        let (mut client, task) = serve();
        client.write_all(&[b'a'; 20 * 1024]).await.unwrap();
        assert!(reply(&mut client).await.starts_with("HTTP/1.1 431"));
        drop(client);
        task.await.unwrap().unwrap();
    }
}
