//! Messages with file descriptors between two processes of one machine.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use super::message::{Malformed, Message};

/// Files in one datagram; the kernel's limit is 253 (`SCM_MAX_FD`).
const FILES: usize = 128;
/// Octets of one datagram.
const OCTETS: usize = 32 * 1024;
/// The first octet of a datagram: the last of its message, or not.
const LAST: u8 = b'.';
const MORE: u8 = b'+';

/// One end of a connection that keeps messages apart (`SOCK_SEQPACKET`).
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// Why nothing was received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The other side closed its end, or is gone.
    #[error("the other side is gone")]
    Closed,
    /// Nothing is waiting.
    #[error("nothing is waiting")]
    Empty,
    /// The kernel says.
    #[error(transparent)]
    Io(#[from] Errno),
    /// What came is no message.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl Channel {
    /// Two ends of one connection.
    pub fn pair() -> io::Result<(Channel, Channel)> {
        let (one, other) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Channel(one), Channel(other)))
    }

    /// The end `socket`, which must be of type `SOCK_SEQPACKET`.
    pub fn new(socket: OwnedFd) -> Channel {
        Channel(socket)
    }

    /// The socket.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Sends `message`, and never waits: a reader that lets its socket fill up is as good as dead.
    pub fn send(&self, message: &Message) -> io::Result<()> {
        let (text, files) = message.encode();
        let mut texts = text.as_bytes().chunks(OCTETS - 1);
        let mut files = files.chunks(FILES);
        let (mut octets, mut rights) = (texts.next(), files.next());
        loop {
            let (next_octets, next_rights) = (texts.next(), files.next());
            let last = next_octets.is_none() && next_rights.is_none();
            let mark = if last { LAST } else { MORE };
            self.send_datagram(mark, octets.unwrap_or_default(), rights.unwrap_or_default())?;
            if last {
                return Ok(());
            }
            (octets, rights) = (next_octets, next_rights);
        }
    }

    fn send_datagram(&self, mark: u8, octets: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(FILES))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(files)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let parts = [IoSlice::new(std::slice::from_ref(&mark)), IoSlice::new(octets)];
        // A reader that is gone is an error here, not a signal.
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        retry(|| sendmsg(&self.0, &parts, &mut ancillary, flags))?;
        Ok(())
    }

    /// The next message; waits for it.
    pub fn receive(&self) -> Result<Message, ReceiveError> {
        self.receive_with(RecvFlags::empty())
    }

    /// The next message, if it is here.
    pub fn try_receive(&self) -> Result<Message, ReceiveError> {
        self.receive_with(RecvFlags::DONTWAIT)
    }

    fn receive_with(&self, first: RecvFlags) -> Result<Message, ReceiveError> {
        let (mut text, mut files) = (Vec::new(), Vec::new());
        let mut flags = first;
        while self.receive_datagram(flags, &mut text, &mut files)? == MORE {
            // The sender is in the middle of it.
            flags = RecvFlags::empty();
        }
        let text = String::from_utf8(text).map_err(|_| Malformed::new("not UTF-8"))?;
        Ok(Message::decode(&text, files)?)
    }

    fn receive_datagram(
        &self,
        flags: RecvFlags,
        text: &mut Vec<u8>,
        files: &mut Vec<OwnedFd>,
    ) -> Result<u8, ReceiveError> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(FILES))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut octets = vec![0; OCTETS];
        let flags = flags | RecvFlags::CMSG_CLOEXEC;
        let received = retry(|| recvmsg(&self.0, &mut [IoSliceMut::new(&mut octets)], &mut ancillary, flags));
        let received = match received {
            Ok(received) => received,
            Err(Errno::AGAIN) => return Err(ReceiveError::Empty),
            Err(Errno::CONNRESET | Errno::PIPE) => return Err(ReceiveError::Closed),
            Err(error) => return Err(error.into()),
        };
        for rights in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = rights {
                files.extend(received);
            }
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(Malformed::new("longer than any message").into());
        }
        // Every datagram has its mark, so an empty one is the end.
        let (mark, rest) = octets[..received.bytes].split_first().ok_or(ReceiveError::Closed)?;
        text.extend_from_slice(rest);
        Ok(*mark)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    rustix::io::retry_on_intr(&mut call)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guardian::message::CacheFile;

    #[test]
    fn a_message_longer_than_a_datagram_arrives_whole() {
        let (one, other) = Channel::pair().unwrap();
        let file = || std::fs::File::open("/dev/null").unwrap().into();
        let caches =
            (0..300).map(|at| CacheFile { label: format!("{at} {}", "x".repeat(400)), file: file() });
        let caches: Vec<CacheFile> = caches.collect();
        let sent = Message::Sockets { sockets: Vec::new(), beside: true, caches };
        one.send(&sent).unwrap();
        let Ok(Message::Sockets { beside: true, caches, .. }) = other.receive() else {
            panic!("another message");
        };
        assert_eq!(caches.len(), 300);
        assert!(caches[299].label.starts_with("299 xxx"));
        assert!(matches!(other.try_receive(), Err(ReceiveError::Empty)));
        drop(one);
        assert!(matches!(other.receive(), Err(ReceiveError::Closed)));
    }
}
