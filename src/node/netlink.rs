//! Blocking netlink (RFC 3549): send a request, collect its answers, name the operation in errors.

use std::fmt::Debug;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, getsockname, recv, sendto,
    socket_with,
};

/// The kernel answers within the system call as a rule; a lock held elsewhere may delay it.
const ANSWER_TIMEOUT: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };
/// More than the largest datagram of a dump (32 KiB, `NLMSG_GOODSIZE` grown by the receive size).
const BUFFER: usize = 64 * 1024;
/// How often a dump that raced with a change is started again.
const DUMP_ATTEMPTS: usize = 5;
/// The subsystem number that a batch names in its header (`NFNL_SUBSYS_NFTABLES`).
const SUBSYSTEM_NFTABLES: u16 = 10;

/// Why a netlink operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused it.
    #[error("{operation}: {errno}")]
    Refused {
        /// What was asked for.
        operation: String,
        /// The kernel's reason.
        errno: Errno,
    },
    /// The socket itself failed, a missing answer (`EAGAIN`, after 5 s) included.
    #[error("{operation}: netlink socket: {errno}")]
    Socket {
        /// What was asked for.
        operation: String,
        /// The system call's error.
        errno: Errno,
    },
    /// The answer could not be decoded.
    #[error("{operation}: undecodable answer: {reason}")]
    Undecodable {
        /// What was asked for.
        operation: String,
        /// The decoder's words.
        reason: String,
    },
    /// The dumped objects kept changing while they were dumped.
    #[error("{operation}: changed during every attempt to read it")]
    Unsettled {
        /// What was asked for.
        operation: String,
    },
}

impl Error {
    /// The kernel's refusal, if it was one.
    pub fn refusal(&self) -> Option<Errno> {
        match self {
            Error::Refused { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    pub(super) fn undecodable(operation: &str, reason: impl ToString) -> Error {
        Error::Undecodable { operation: operation.into(), reason: reason.to_string() }
    }
}

/// A netlink socket with a port of its own, for requests.
#[derive(Debug)]
pub struct Connection {
    fd: OwnedFd,
    sequence: u32,
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Connection {
    /// Opens a socket for links and addresses, in the calling thread's network namespace.
    pub fn route() -> Result<Connection, Error> {
        Connection::adopt(subscribe(None, 0)?)
    }

    /// Opens a socket for netfilter, in the calling thread's network namespace.
    pub fn netfilter() -> Result<Connection, Error> {
        Connection::adopt(subscribe(Some(NETFILTER), 0)?)
    }

    /// Takes over a socket that another process opened and bound.
    pub fn adopt(fd: OwnedFd) -> Result<Connection, Error> {
        // An adopted socket may still hold answers to its previous owner: start elsewhere.
        let sequence = rustix::process::getpid().as_raw_nonzero().get().cast_unsigned() << 12;
        Ok(Connection { fd, sequence })
    }

    /// The socket's netlink port, the identity by which the kernel knows a table's owner.
    pub fn port(&self) -> Result<u32, Error> {
        let failed = socket_error("read the socket's netlink port");
        let address = getsockname(&self.fd).map_err(&failed)?;
        let address = SocketAddrNetlink::try_from(address).map_err(&failed)?;
        Ok(address.pid())
    }

    /// Sends one request and returns the objects in its answer, if any.
    pub fn request<M>(&mut self, operation: &str, message: M, flags: u16) -> Result<Vec<M>, Error>
    where
        M: NetlinkSerializable + NetlinkDeserializable + Debug,
    {
        self.exchange(operation, message, flags, Some)
    }

    fn exchange<M, T>(
        &mut self,
        operation: &str,
        message: M,
        flags: u16,
        pick: impl FnMut(M) -> Option<T>,
    ) -> Result<Vec<T>, Error>
    where
        M: NetlinkSerializable + NetlinkDeserializable + Debug,
    {
        let payload = NetlinkPayload::InnerMessage(message);
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), payload);
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let sequence = self.next_sequence();
        message.header.sequence_number = sequence;
        message.finalize();
        self.send(operation, &serialize(&[message]))?;
        self.collect(operation, sequence, sequence, pick)
    }

    /// Reads all objects that match `message`.
    pub fn dump<M>(&mut self, operation: &str, message: M) -> Result<Vec<M>, Error>
    where
        M: NetlinkSerializable + NetlinkDeserializable + Debug + Clone,
    {
        self.dump_picked(operation, message, Some)
    }

    /// The same, and keeps only what `pick` makes of each: a node may have tens of thousands.
    pub fn dump_picked<M, T>(
        &mut self,
        operation: &str,
        message: M,
        pick: impl Fn(M) -> Option<T>,
    ) -> Result<Vec<T>, Error>
    where
        M: NetlinkSerializable + NetlinkDeserializable + Debug + Clone,
    {
        for _ in 0..DUMP_ATTEMPTS {
            match self.exchange(operation, message.clone(), NLM_F_DUMP, &pick) {
                Err(Error::Unsettled { .. }) => {}
                other => return other,
            }
        }
        Err(Error::Unsettled { operation: operation.into() })
    }

    /// Commits `messages` (each with its flags beyond `NLM_F_REQUEST`) as one nftables transaction:
    /// all of it or nothing.
    pub fn transaction(
        &mut self,
        operation: &str,
        messages: Vec<(NetfilterMessage, u16)>,
    ) -> Result<(), Error> {
        let first = self.next_sequence();
        let mut batch = vec![batch_control(ControlMessage::BatchBegin, first)];
        for (message, flags) in messages {
            let mut message = NetlinkMessage::from(message);
            message.header.flags = NLM_F_REQUEST | flags;
            message.header.sequence_number = self.next_sequence();
            message.finalize();
            batch.push(message);
        }
        // One acknowledgement says that all went in; refusals come without being asked for.
        let last = self.sequence;
        if let Some(message) = batch.last_mut() {
            message.header.flags |= NLM_F_ACK;
        }
        batch.push(batch_control(ControlMessage::BatchEnd, self.next_sequence()));
        self.send(operation, &serialize(&batch))?;
        self.collect(operation, first, last, |_: NetfilterMessage| None::<()>).map(|_| ())
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    fn send(&self, operation: &str, bytes: &[u8]) -> Result<(), Error> {
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.fd, bytes, SendFlags::empty(), &kernel).map(|_| ()).map_err(socket_error(operation))
    }

    /// The next datagram. Who else holds this socket could take it or change the socket's own timeout, but
    /// nobody waits longer for that.
    fn answer<'a>(&self, buffer: &'a mut Vec<u8>) -> Result<&'a [u8], Errno> {
        let mut polled = [PollFd::new(&self.fd, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut polled, Some(&ANSWER_TIMEOUT)))?;
        receive(&self.fd, buffer, RecvFlags::DONTWAIT)
    }

    /// Collects answers to the requests numbered `first..=last` until the last one is acknowledged
    /// or any is refused. Answers to earlier, failed requests are skipped.
    fn collect<M, T>(
        &self,
        operation: &str,
        first: u32,
        last: u32,
        mut pick: impl FnMut(M) -> Option<T>,
    ) -> Result<Vec<T>, Error>
    where
        M: NetlinkDeserializable + Debug,
    {
        let mut found = Vec::new();
        let mut interrupted = false;
        let mut buffer = buffer();
        loop {
            let datagram = self.answer(&mut buffer).map_err(socket_error(operation))?;
            for message in messages::<M>(datagram) {
                let message = message.map_err(|e| Error::undecodable(operation, e))?;
                let sequence = message.header.sequence_number;
                let span = last.wrapping_sub(first);
                if sequence.wrapping_sub(first) > span {
                    continue;
                }
                interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(object) => found.extend(pick(object)),
                    NetlinkPayload::Error(answer) if answer.code.is_some() => {
                        return Err(Error::Refused {
                            operation: numbered(operation, sequence.wrapping_sub(first), span),
                            errno: Errno::from_raw_os_error(answer.raw_code().saturating_neg()),
                        });
                    }
                    NetlinkPayload::Error(_) if sequence != last => {}
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) if interrupted => {
                        return Err(Error::Unsettled { operation: operation.into() });
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(found),
                    _ => {}
                }
            }
        }
    }
}

/// Opens a bound netlink socket that receives the multicast groups in the bit mask `groups`
/// (group n is bit n-1).
pub(super) fn subscribe(protocol: Option<Protocol>, groups: u32) -> Result<OwnedFd, Error> {
    let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
        .map_err(socket_error("open a netlink socket"))?;
    bind(&fd, &SocketAddrNetlink::new(0, groups)).map_err(socket_error("bind a netlink socket"))?;
    Ok(fd)
}

/// Receives one datagram into `buffer`, from [`buffer`].
pub(super) fn receive<'a>(
    fd: &OwnedFd,
    buffer: &'a mut Vec<u8>,
    flags: RecvFlags,
) -> Result<&'a [u8], Errno> {
    rustix::io::retry_on_intr(|| {
        buffer.clear();
        recv(fd, spare_capacity(buffer), flags)
    })?;
    Ok(buffer)
}

/// Room for one datagram, of which only what one fills is ever touched.
pub(super) fn buffer() -> Vec<u8> {
    Vec::with_capacity(BUFFER)
}

/// The messages in one datagram. An undecodable one ends the iteration when its length is not to be
/// trusted either.
pub(super) fn messages<M>(datagram: &[u8]) -> impl Iterator<Item = Result<NetlinkMessage<M>, String>>
where
    M: NetlinkDeserializable + Debug,
{
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let length = match NetlinkBuffer::new_checked(&rest) {
            Ok(header) => header.length() as usize,
            Err(e) => {
                rest = &[];
                return Some(Err(e.to_string()));
            }
        };
        let message = NetlinkMessage::<M>::deserialize(&rest[..length]);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(message.map_err(|e| e.to_string()))
    })
}

fn batch_control(control: ControlMessage, sequence: u32) -> NetlinkMessage<NetfilterMessage> {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, SUBSYSTEM_NFTABLES);
    let mut message = NetlinkMessage::from(NetfilterMessage::new(header, control));
    message.header.flags = NLM_F_REQUEST;
    message.header.sequence_number = sequence;
    message.finalize();
    message
}

fn serialize<M: NetlinkSerializable>(messages: &[NetlinkMessage<M>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in messages {
        let start = bytes.len();
        let length = message.buffer_len();
        bytes.resize(start + length.next_multiple_of(4), 0);
        message.emit(&mut bytes[start..start + length]);
    }
    bytes
}

fn numbered(operation: &str, index: u32, span: u32) -> String {
    if span == 0 { operation.into() } else { format!("{operation} (step {index} of {span})") }
}

fn socket_error(operation: &str) -> impl Fn(Errno) -> Error {
    move |errno| Error::Socket { operation: operation.into(), errno }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route_message::RouteMessage;

    fn read(datagram: &[u8]) -> Vec<bool> {
        let found = messages::<RouteMessage>(datagram);
        found.map(|message| message.is_ok()).collect()
    }

    #[test]
    fn a_datagram_is_cut_at_aligned_lengths() {
        let acknowledgement = |length: u8| {
            let mut bytes = vec![0; 40];
            (bytes[0], bytes[4]) = (length, 2);
            bytes
        };
        let two = [acknowledgement(37), acknowledgement(40)].concat();
        assert_eq!(read(&two), [true, true]);
    }

    #[test]
    fn lengths_that_lie_end_the_datagram() {
        assert!(read(&[]).is_empty());
        assert_eq!(read(&[16, 0, 0]), [false]);
        assert_eq!(read(&[0; 32]), [false]);
        assert_eq!(read(&[255; 32]), [false]);
    }

    #[test]
    fn a_refusal_names_the_operation() {
        let mut connection = Connection::route().unwrap();
        let mut message = netlink_packet_route::link::LinkMessage::default();
        let name = "no-such-link-xy".to_owned();
        message.attributes = vec![netlink_packet_route::link::LinkAttribute::IfName(name)];
        let error = connection.request("read it", RouteMessage::GetLink(message), 0).unwrap_err();
        assert_eq!(error.refusal(), Some(Errno::NODEV));
        assert!(error.to_string().starts_with("read it: "), "{error}");
    }
}
