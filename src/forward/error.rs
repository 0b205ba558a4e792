//! Why a chain cannot be built, and why a query got no answer.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::metrics::Protocol;

/// Why a [`Chain`](super::Chain) cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A PEM file of the `tls` option cannot be read.
    #[error("{what} {}: {reason}", path.display())]
    TlsFile {
        /// What the file should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Neither a CA file is named nor does the system have root certificates.
    #[error("no root certificates to verify tls:// upstreams with: {0}")]
    NoRoots(String),
    /// Certificate and key do not belong together, or the TLS library refuses them.
    #[error("TLS client configuration: {0}")]
    Tls(#[from] rustls::Error),
    /// A server name that is neither a DNS name nor an address.
    #[error("{0:?} is not a TLS server name")]
    ServerName(String),
}

/// Why a query got no answer. `Display` is the text of the `errors` log line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// No directive of the block is for this name.
    #[error("no forward directive for this name")]
    NotForwarded,
    /// The message has no question section that can be read.
    #[error("query without a readable question")]
    Malformed,
    /// `max_concurrent` queries are in flight: the client gets REFUSED.
    #[error("concurrent queries exceeded maximum {limit}")]
    Overloaded {
        /// The directive's `max_concurrent`.
        limit: usize,
    },
    /// Every upstream is down and `failfast_all_unhealthy_upstreams` is set, or there is none.
    #[error("no healthy proxies")]
    AllDown,
    /// Nothing answered before [`DEADLINE`](super::DEADLINE).
    #[error("read {protocol} {to}: i/o timeout")]
    Timeout {
        /// Over what the query was sent.
        protocol: Protocol,
        /// The upstream asked last.
        to: SocketAddr,
    },
    /// Every attempt failed; this is how the last one did.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// How one attempt at one upstream failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operation} {protocol} {to}: {reason}")]
pub struct Failure {
    /// Whether the connection or the exchange failed.
    pub operation: Operation,
    /// Over what.
    pub protocol: Protocol,
    /// The upstream.
    pub to: SocketAddr,
    /// Why.
    pub reason: Reason,
}

/// The step of an attempt that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Opening a socket or connection, TLS handshake included.
    Dial,
    /// Sending the query or waiting for its answer.
    Read,
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Nothing came in time.
    #[error("i/o timeout")]
    Timeout,
    /// The peer closed the connection.
    #[error("EOF")]
    Closed,
    /// The peer reset the connection.
    #[error("connection reset by peer")]
    Reset,
    /// Nobody listens there.
    #[error("connection refused")]
    Refused,
    /// The reply answers another question.
    #[error("reply does not match the question")]
    Unrelated,
    /// What came is not DNS.
    #[error("not a DNS message")]
    Garbage,
    /// Too many queries are in flight to this upstream.
    #[error("too many queries in flight")]
    Busy,
    /// The TLS handshake failed.
    #[error("tls: {0}")]
    Tls(String),
    /// Any other error of the operating system.
    #[error("{0}")]
    Io(String),
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operation::Dial => "dial",
            Operation::Read => "read",
        })
    }
}

impl From<&io::Error> for Reason {
    fn from(error: &io::Error) -> Reason {
        match error.kind() {
            io::ErrorKind::TimedOut => Reason::Timeout,
            io::ErrorKind::UnexpectedEof => Reason::Closed,
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
                Reason::Reset
            }
            io::ErrorKind::ConnectionRefused => Reason::Refused,
            _ => Reason::Io(error.to_string()),
        }
    }
}
