//! DNS messages on a byte stream: two octets of length, then the message (RFC 1035 §4.2.2).

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::message;
use crate::wire::HEADER;

/// Octets asked of the stream per read.
const READ: usize = 4096;
/// A buffer that grew past this is given back once it is empty.
const KEEP: usize = 16 * 1024;

/// A frame too short to hold a DNS header, or longer than is taken here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} octets")]
pub struct BadFrame(usize);

/// Cuts a stream into messages. Holds less than one frame and one read; memory grows with what
/// arrives, not with what a length promises.
#[derive(Debug)]
pub struct FrameReader {
    /// Octets of the longest message taken.
    longest: usize,
    buffer: Vec<u8>,
    /// Where the first message not yet taken begins.
    start: usize,
}

impl Default for FrameReader {
    fn default() -> FrameReader {
        FrameReader::limited(usize::from(u16::MAX))
    }
}

impl FrameReader {
    /// Takes messages of at most `longest` octets.
    pub fn limited(longest: usize) -> FrameReader {
        FrameReader { longest, buffer: Vec::new(), start: 0 }
    }

    /// Whether no part of a message is waiting for its rest.
    pub fn is_empty(&self) -> bool {
        self.buffer.len() == self.start
    }

    /// Reads once. Ready with the number of octets, 0 at the end of the stream.
    ///
    /// All frames must have been taken from [`take`](FrameReader::take) before.
    pub fn poll_fill<S>(&mut self, stream: &mut S, context: &mut Context<'_>) -> Poll<io::Result<usize>>
    where
        S: AsyncRead + Unpin,
    {
        self.buffer.drain(..self.start);
        self.start = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > KEEP {
            self.buffer = Vec::new();
        }
        self.buffer.reserve(READ);
        pin!(stream.read_buf(&mut self.buffer)).poll(context)
    }

    /// The next complete message, or `None` if more octets are needed.
    pub fn take(&mut self) -> Result<Option<&[u8]>, BadFrame> {
        let rest = &self.buffer[self.start..];
        let Some((length, rest)) = rest.split_first_chunk() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes(*length));
        if length < HEADER || length > self.longest {
            return Err(BadFrame(length));
        }
        let Some(message) = rest.get(..length) else {
            return Ok(None);
        };
        self.start += 2 + length;
        Ok(Some(message))
    }
}

/// Frames on their way out. What gathers between two writes leaves in one.
#[derive(Debug, Default)]
pub(super) struct FrameWriter {
    buffer: Vec<u8>,
    written: usize,
    unflushed: bool,
}

impl FrameWriter {
    /// Octets waiting.
    pub(super) fn len(&self) -> usize {
        self.buffer.len() - self.written
    }

    /// Appends `message` under another id. It must be 65 535 octets long at most.
    pub(super) fn push(&mut self, id: u16, message: &[u8]) {
        if self.written > KEEP {
            self.buffer.drain(..self.written);
            self.written = 0;
        }
        let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
        self.buffer.extend(length.to_be_bytes());
        let at = self.buffer.len();
        self.buffer.extend(&message[..usize::from(length)]);
        message::set_id(&mut self.buffer[at..], id);
    }

    /// Writes until everything is out and flushed, or the stream takes no more.
    pub(super) fn poll_drain<S>(&mut self, stream: &mut S, context: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        S: AsyncWrite + Unpin,
    {
        while self.len() > 0 {
            let rest = &self.buffer[self.written..];
            match ready!(Pin::new(&mut *stream).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
            self.unflushed = true;
        }
        self.buffer.clear();
        self.buffer.shrink_to(KEEP);
        self.written = 0;
        if self.unflushed {
            ready!(Pin::new(stream).poll_flush(context))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        let length = u16::try_from(message.len()).unwrap();
        [&length.to_be_bytes()[..], message].concat()
    }

    async fn fill(reader: &mut FrameReader, stream: &mut (impl AsyncRead + Unpin)) -> usize {
        poll_fn(|context| reader.poll_fill(stream, context)).await.unwrap()
    }

    #[tokio::test]
    async fn one_read_gives_many_frames() {
        let (mut near, mut far) = duplex(65536);
        let messages = [vec![1; 12], vec![2; 700], vec![3; 13]];
        far.write_all(&messages.iter().flat_map(|m| framed(m)).collect::<Vec<_>>()).await.unwrap();
        let mut reader = FrameReader::default();
        fill(&mut reader, &mut near).await;
        for message in &messages {
            assert_eq!(reader.take().unwrap().unwrap(), &message[..]);
        }
        assert_eq!(reader.take().unwrap(), None);
    }

    #[tokio::test]
    async fn octet_by_octet_gives_the_same_frames() {
        let (mut near, mut far) = duplex(1);
        let large = vec![7; 65535];
        let stream = [framed(&[1; 12]), framed(&large)].concat();
        let writer = tokio::spawn(async move { far.write_all(&stream).await });
        let mut reader = FrameReader::default();
        let mut seen = Vec::new();
        while fill(&mut reader, &mut near).await > 0 {
            while let Some(message) = reader.take().unwrap() {
                seen.push(message.to_vec());
            }
        }
        writer.await.unwrap().unwrap();
        assert!(seen == [vec![1; 12], large]);
    }

    #[tokio::test]
    async fn a_frame_without_room_for_a_header_is_an_error() {
        for length in 0..HEADER {
            let (mut near, mut far) = duplex(64);
            far.write_all(&framed(&vec![0; length])).await.unwrap();
            let mut reader = FrameReader::default();
            fill(&mut reader, &mut near).await;
            assert_eq!(reader.take(), Err(BadFrame(length)));
        }
    }

    #[tokio::test]
    async fn frames_gather_into_one_write() {
        let (near, mut far) = duplex(65536);
        let mut near = CountWrites(near, 0);
        let mut writer = FrameWriter::default();
        writer.push(0x0102, &[0; 12]);
        writer.push(0x0304, &[9; 14]);
        poll_fn(|context| writer.poll_drain(&mut near, context)).await.unwrap();
        assert_eq!((near.1, writer.len()), (1, 0));
        let mut sent = vec![0; 30];
        far.read_exact(&mut sent).await.unwrap();
        assert_eq!(sent[..5], [0, 12, 1, 2, 0]);
        assert_eq!(sent[14..19], [0, 14, 3, 4, 9]);
    }

    struct CountWrites(tokio::io::DuplexStream, usize);

    impl AsyncWrite for CountWrites {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            octets: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.1 += 1;
            Pin::new(&mut self.0).poll_write(context, octets)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }
}
