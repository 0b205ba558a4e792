//! Opening connections.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::{Failure, Operation, Reason};
use super::metrics::Protocol;

/// A TLS handshake, counted from the open TCP connection, takes no longer.
const MAX_HANDSHAKE: Duration = Duration::from_secs(2);
/// Octets the peer's kernel has not acknowledged for this long break the connection. Without it a
/// host that lost its power holds the connection for 15 minutes of retransmissions.
const USER_TIMEOUT: Duration = Duration::from_secs(2);

/// A stream to an upstream: TCP, TLS, or a test's pipe.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// Acknowledges at once what was read.
    ///
    /// A server that leaves Nagle's algorithm on (NSD) keeps each answer back until the one before
    /// is acknowledged, and the kernel keeps acknowledgements back for 40 ms unless there is something
    /// to send along with them.
    fn acknowledge(&self) {}
}

impl Stream for TcpStream {
    fn acknowledge(&self) {
        // Answers still come without it, only later.
        let _ = SockRef::from(self).set_tcp_quickack(true);
    }
}

impl Stream for TlsStream<TcpStream> {
    fn acknowledge(&self) {
        self.get_ref().0.acknowledge();
    }
}

impl Stream for Box<dyn Stream> {
    fn acknowledge(&self) {
        (**self).acknowledge();
    }
}

#[cfg(test)]
impl Stream for tokio::io::DuplexStream {}

/// A connection on its way.
pub(super) type Dialling = Pin<Box<dyn Future<Output = Result<Box<dyn Stream>, Failure>>>>;

/// Opens connections to one upstream; the argument bounds the TCP handshake.
pub(super) type Dial = Box<dyn Fn(Duration) -> Dialling>;

/// Dials `to`, over TLS if given a configuration and the name the certificate must carry.
pub(super) fn dialer(to: SocketAddr, tls: Option<(Arc<ClientConfig>, ServerName<'static>)>) -> Dial {
    Box::new(move |patience| {
        let tls = tls.clone();
        Box::pin(async move {
            match tls {
                None => {
                    let stream = connect(to, patience).await;
                    let stream = stream.map_err(|reason| failure(to, Protocol::Tcp, reason))?;
                    Ok(Box::new(stream) as Box<dyn Stream>)
                }
                Some((config, name)) => {
                    let stream = secure(to, patience, config, name).await;
                    let stream = stream.map_err(|reason| failure(to, Protocol::Tls, reason))?;
                    Ok(Box::new(stream) as Box<dyn Stream>)
                }
            }
        })
    })
}

fn failure(to: SocketAddr, protocol: Protocol, reason: Reason) -> Failure {
    Failure { operation: Operation::Dial, protocol, to, reason }
}

async fn connect(to: SocketAddr, patience: Duration) -> Result<TcpStream, Reason> {
    let connecting = async {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_user_timeout(Some(USER_TIMEOUT))?;
        io::Result::Ok(stream)
    };
    match timeout(patience, connecting).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(Reason::from(&error)),
        Err(_) => Err(Reason::Timeout),
    }
}

async fn secure(
    to: SocketAddr,
    patience: Duration,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<impl Stream, Reason> {
    let stream = connect(to, patience).await?;
    let handshake = TlsConnector::from(config).connect(name, stream);
    match timeout(MAX_HANDSHAKE, handshake).await {
        Ok(Ok(stream)) => Ok(stream),
        // A refused certificate arrives as `InvalidData` around rustls's own error.
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => Err(Reason::Tls(error.to_string())),
        Ok(Err(error)) => Err(Reason::from(&error)),
        Err(_) => Err(Reason::Timeout),
    }
}
