//! An upstream that costs next to nothing: it answers every query over TCP at once, one thread per
//! connection, many queries per system call.

#![allow(dead_code, reason = "each suite uses its own part")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

/// See the [module](self). It runs until the process ends.
pub struct PlainUpstream {
    pub address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl PlainUpstream {
    /// Starts on a free port of 127.0.0.1.
    pub fn start() -> PlainUpstream {
        PlainUpstream::start_at(([127, 0, 0, 1], 0).into())
    }

    /// Starts at `address`, which must be free.
    pub fn start_at(address: SocketAddr) -> PlainUpstream {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, count) = (stream.unwrap(), count.clone());
                thread::spawn(move || serve(stream, &count));
            }
        });
        PlainUpstream { address, asked }
    }

    /// Queries answered so far.
    pub fn asked(&self) -> usize {
        self.asked.load(Relaxed)
    }
}

/// Answers with an address until the peer closes.
fn serve(mut stream: TcpStream, asked: &AtomicUsize) {
    stream.set_nodelay(true).unwrap();
    let mut buffer = vec![0; 64 * 1024];
    let (mut filled, mut replies) = (0, Vec::new());
    while let Ok(read @ 1..) = stream.read(&mut buffer[filled..]) {
        filled += read;
        let mut at = 0;
        while let Some(frame) = frame(&buffer[at..filled]) {
            answer(frame, &mut replies);
            at += 2 + frame.len();
            asked.fetch_add(1, Relaxed);
        }
        buffer.copy_within(at..filled, 0);
        filled -= at;
        if stream.write_all(&replies).is_err() {
            return;
        }
        replies.clear();
    }
}

fn frame(octets: &[u8]) -> Option<&[u8]> {
    let length = octets.first_chunk().map(|length| usize::from(u16::from_be_bytes(*length)))?;
    octets.get(2..2 + length)
}

/// Appends the frame with the answer to `query`.
fn answer(query: &[u8], replies: &mut Vec<u8>) {
    let name = query[12..].iter().position(|&octet| octet == 0).unwrap();
    let question_end = 12 + name + 5;
    replies.extend(u16::try_from(question_end + 16).unwrap().to_be_bytes());
    let start = replies.len();
    replies.extend(&query[..question_end]);
    let header = &mut replies[start..start + 12];
    header[2] |= 0x80;
    header[3] = 0x80;
    header[6..12].copy_from_slice(&[0, 1, 0, 0, 0, 0]);
    replies.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 192, 0, 2, 7]);
}
