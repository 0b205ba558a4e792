//! A stream means the same frames however it is cut into reads.

#![no_main]

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use doorstep::forward::FrameReader;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncRead, ReadBuf};

#[derive(Debug, arbitrary::Arbitrary)]
struct Input {
    longest: u16,
    parts: Vec<Part>,
    /// Octets per read.
    reads: Vec<u16>,
}

#[derive(Debug, arbitrary::Arbitrary)]
enum Part {
    Octets(Vec<u8>),
    Frame { len: u16, fill: u8 },
}

fuzz_target!(|input: Input| {
    let mut octets = Vec::new();
    for part in input.parts {
        match part {
            Part::Octets(raw) => octets.extend(raw),
            Part::Frame { len, fill } => {
                octets.extend(len.to_be_bytes());
                octets.extend(std::iter::repeat_n(fill, usize::from(len)));
            }
        }
    }
    let longest = usize::from(input.longest).max(12);
    let expected = frames(&octets, longest);
    let mut stream = Stream { octets: octets.into(), reads: input.reads.into() };
    let mut reader = FrameReader::limited(longest);
    let mut context = Context::from_waker(Waker::noop());
    let mut seen = Vec::new();
    loop {
        match reader.take() {
            Ok(Some(message)) => seen.push(Some(message.to_vec())),
            Ok(None) => match reader.poll_fill(&mut stream, &mut context) {
                Poll::Ready(Ok(1..)) => {}
                _ => break,
            },
            Err(_) => {
                seen.push(None);
                break;
            }
        }
    }
    assert_eq!(seen, expected);
});

/// The frames in `octets`; `None` for one that is too short or too long, after which nothing counts.
fn frames(mut octets: &[u8], longest: usize) -> Vec<Option<Vec<u8>>> {
    let mut frames = Vec::new();
    while let Some((len, rest)) = octets.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes(*len));
        if !(12..=longest).contains(&len) {
            frames.push(None);
            break;
        }
        let Some((message, rest)) = rest.split_at_checked(len) else { break };
        frames.push(Some(message.to_vec()));
        octets = rest;
    }
    frames
}

struct Stream {
    octets: VecDeque<u8>,
    reads: VecDeque<u16>,
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let most = self.reads.pop_front().unwrap_or(u16::MAX).max(1);
        let len = usize::from(most).min(buffer.remaining()).min(self.octets.len());
        let octets: Vec<u8> = self.octets.drain(..len).collect();
        buffer.put_slice(&octets);
        Poll::Ready(Ok(()))
    }
}
