//! A netfilter netlink socket: dumps, single requests and nf_tables batches.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::nftables::NfTablesMessage;
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

/// `NFNL_SUBSYS_NFTABLES`, which a batch names in place of a resource id.
const NFTABLES: u16 = 10;

/// A socket of the namespace that the opening thread is in.
pub(super) struct Netfilter(Socket);

impl Netfilter {
    pub(super) fn open() -> io::Result<Netfilter> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Netfilter(socket))
    }

    /// Everything of one kind; `family` limits it.
    pub(super) fn dump(
        &self,
        family: NetfilterProtoFamily,
        request: impl Into<NetfilterMessageInner>,
    ) -> io::Result<Vec<NetfilterMessageInner>> {
        let request = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), request);
        self.send(&[(request, NLM_F_REQUEST | NLM_F_DUMP)])?;
        let mut found = Vec::new();
        loop {
            for message in self.receive()? {
                match message.payload {
                    NetlinkPayload::InnerMessage(message) => found.push(message.inner),
                    NetlinkPayload::Done(_) => return Ok(found),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    _ => {}
                }
            }
        }
    }

    /// One request that the kernel acknowledges.
    pub(super) fn request(
        &self,
        family: NetfilterProtoFamily,
        request: impl Into<NetfilterMessageInner>,
    ) -> io::Result<()> {
        let request = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), request);
        self.send(&[(request, NLM_F_REQUEST | NLM_F_ACK)])?;
        self.acknowledgement()
    }

    /// Makes changes to IPv4 tables and what is in them, all or none.
    pub(super) fn change_all(&self, changes: Vec<NfTablesMessage>) -> io::Result<()> {
        let envelope = |control| {
            let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NFTABLES);
            (NetfilterMessage::new(header, control), NLM_F_REQUEST)
        };
        let add = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_APPEND;
        let last = changes.len().saturating_sub(1);
        let mut batch = vec![envelope(ControlMessage::BatchBegin)];
        for (position, change) in changes.into_iter().enumerate() {
            let header = NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0);
            // Errors come unasked and in order, so the first report tells about the whole batch.
            let flags = if position == last { add | NLM_F_ACK } else { add };
            batch.push((NetfilterMessage::new(header, change), flags));
        }
        batch.push(envelope(ControlMessage::BatchEnd));
        self.send(&batch)?;
        self.acknowledgement()
    }

    fn acknowledgement(&self) -> io::Result<()> {
        loop {
            for message in self.receive()? {
                if let NetlinkPayload::Error(error) = message.payload {
                    return match error.code {
                        Some(_) => Err(error.to_io()),
                        None => Ok(()),
                    };
                }
            }
        }
    }

    fn send(&self, messages: &[(NetfilterMessage, u16)]) -> io::Result<()> {
        let mut datagram = Vec::new();
        for (message, flags) in messages {
            let mut message = NetlinkMessage::from(message.clone());
            message.header.flags = *flags;
            message.finalize();
            let start = datagram.len();
            datagram.resize(start + message.buffer_len(), 0);
            message.serialize(&mut datagram[start..]);
        }
        self.0.send(&datagram, 0).map(drop)
    }

    fn receive(&self) -> io::Result<Vec<NetlinkMessage<NetfilterMessage>>> {
        let (datagram, _) = self.0.recv_from_full()?;
        let mut rest = &datagram[..];
        let mut messages = Vec::new();
        while !rest.is_empty() {
            let message = NetlinkMessage::<NetfilterMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            // Messages are padded to four octets (NLMSG_ALIGNTO).
            let length = (message.header.length as usize).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
            messages.push(message);
        }
        Ok(messages)
    }
}
