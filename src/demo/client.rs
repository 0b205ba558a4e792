//! A pod's resolver: one query, one answer, no retries.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::str::FromStr;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};

use super::{DemoError, Namespace};

/// How long a query waits for its answer: a stub resolver's usual five seconds.
const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_MESSAGE: usize = 65_535;

/// How a query travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// One datagram each way.
    Udp,
    /// One connection for one query.
    Tcp,
}

/// An answered query.
#[derive(Debug, Clone)]
pub struct Lookup {
    /// Whom the pod asked.
    pub server: SocketAddr,
    /// The whole answer.
    pub message: Message,
    /// From the first octet sent to the last one received.
    pub elapsed: Duration,
}

impl Lookup {
    /// The answer's RCODE.
    pub fn code(&self) -> ResponseCode {
        self.message.metadata.response_code
    }

    /// The addresses in the answer section.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let records = self.message.answers.iter();
        records.filter_map(|record| record.data.ip_addr()).collect()
    }

    /// The smallest TTL of the answer section, seconds.
    pub fn ttl(&self) -> Option<u32> {
        self.message.answers.iter().map(|record| record.ttl).min()
    }
}

impl fmt::Display for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<String> = self.addresses().iter().map(IpAddr::to_string).collect();
        let answer = match addresses.is_empty() {
            true => self.code().to_string(),
            false => addresses.join(" "),
        };
        write!(f, "{answer}")?;
        if let Some(ttl) = self.ttl() {
            write!(f, ", TTL {ttl} s")?;
        }
        write!(f, ", after {:.2} ms", self.elapsed.as_secs_f64() * 1000.0)
    }
}

/// Asks `server` from inside `namespace`, with a new socket as resolvers in pods do.
///
/// Every answer is a success, whatever its RCODE; a timeout, a refused connection and an answer to
/// something else are errors.
pub fn lookup(
    namespace: &Namespace,
    server: SocketAddr,
    name: &str,
    record_type: RecordType,
    transport: Transport,
) -> Result<Lookup, DemoError> {
    lookup_within(namespace, server, name, record_type, transport, TIMEOUT)
}

/// The same with a `timeout` of the caller's, for those who expect none or a fast answer.
pub fn lookup_within(
    namespace: &Namespace,
    server: SocketAddr,
    name: &str,
    record_type: RecordType,
    transport: Transport,
    timeout: Duration,
) -> Result<Lookup, DemoError> {
    namespace
        .run(|| exchange(server, name, record_type, transport, timeout))?
        .map_err(|source| DemoError::Query { name: name.to_owned(), server, source })
}

/// The same on the calling thread, within `timeout`.
pub(super) fn exchange(
    server: SocketAddr,
    name: &str,
    record_type: RecordType,
    transport: Transport,
    timeout: Duration,
) -> io::Result<Lookup> {
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    let name = Name::from_str(name).map_err(invalid)?;
    query.add_query(Query::query(name, record_type));
    let packet = query.to_vec().map_err(invalid)?;

    let start = Instant::now();
    let answer = match transport {
        Transport::Udp => over_udp(server, &packet, timeout)?,
        Transport::Tcp => over_tcp(server, &packet, timeout)?,
    };
    let elapsed = start.elapsed();

    let message = Message::from_vec(&answer).map_err(invalid)?;
    let answers_query = message.metadata.id == query.metadata.id
        && message.metadata.message_type == MessageType::Response
        && message.queries == query.queries;
    if !answers_query {
        return Err(invalid("the answer belongs to another query"));
    }
    Ok(Lookup { server, message, elapsed })
}

fn over_udp(server: SocketAddr, packet: &[u8], timeout: Duration) -> io::Result<Vec<u8>> {
    let any = if server.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let socket = UdpSocket::bind((any, 0))?;
    // Connected, so that an ICMP error ends the wait and only the server can answer.
    socket.connect(server)?;
    socket.set_read_timeout(Some(timeout))?;
    socket.send(packet)?;
    let mut answer = vec![0; MAX_MESSAGE];
    let length = socket.recv(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

/// Two octets of length before each message (RFC 1035 §4.2.2), in one write (RFC 7766 §8).
fn over_tcp(server: SocketAddr, packet: &[u8], timeout: Duration) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    let length = u16::try_from(packet.len()).map_err(invalid)?;
    stream.write_all(&[&length.to_be_bytes(), packet].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
