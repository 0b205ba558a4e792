//! A miss without the system calls' own work: from the queue through forward and cache to the reply.

use std::cell::RefCell;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::process::{Child, Command, Stdio, exit};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use doorstep::clock::{self, Clock};
use doorstep::forward::{Chain, Config, NoMetrics, Target, Transport};
use doorstep::metrics::{Registry, Transport as ClientTransport};
use doorstep::server::zones::Zone;
use doorstep::server::{Client, Miss, Misses, Moderation, Refusals, ReplyTo};
use doorstep::wire::Name;
use tokio::net::UdpSocket;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::fixture::{self, A, query};

/// Misses taken in together, as under load.
pub const TOGETHER: u32 = 8;
const NAME: &str = "0000000-payments.production.svc.cluster.local.";
/// Where its digits are, behind header and label length.
const NUMBER: Range<usize> = 13..20;
const UPSTREAM: &str = "upstream";

/// The thread that asks upstreams, with a client and an upstream.
pub struct Desk {
    runtime: Runtime,
    tasks: LocalSet,
    queue: mpsc::Sender<Box<Miss>>,
    zone: Arc<Zone>,
    server: Arc<std::net::UdpSocket>,
    client: UdpSocket,
    /// The query asked last; its name begins with a number.
    query: RefCell<Vec<u8>>,
    upstream: Child,
}

impl Desk {
    /// Starts the upstream, too: another process, so that nothing of it is counted.
    pub fn new() -> io::Result<Desk> {
        let program = std::env::current_exe()?;
        let mut upstream =
            Command::new(program).arg(UPSTREAM).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut port = String::new();
        BufReader::new(upstream.stdout.take().expect("it is piped")).read_line(&mut port)?;
        let port: u16 = port.trim().parse().map_err(io::Error::other)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let tasks = LocalSet::new();
        let (queue, waiting) = mpsc::channel(64);
        let zone = fixture::zone(&Registry::new(), ".", &[], false);
        let client = tasks.block_on(&runtime, async {
            let misses = Misses::new(
                &Registry::new(),
                Clock::system(),
                Rc::new(Moderation::default()),
                Arc::<Refusals>::default(),
            );
            let chain = Chain::new(&[directive(port)], Rc::new(NoMetrics)).map_err(io::Error::other)?;
            misses.set_upstreams([(zone.block.id, Rc::new(chain))]);
            tokio::task::spawn_local(misses.serve(waiting));
            UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await
        })?;
        let server = Arc::new(std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?);
        Ok(Desk {
            runtime,
            tasks,
            queue,
            zone,
            server,
            client,
            query: RefCell::new(query(NAME, A, false)),
            upstream,
        })
    }

    /// Has [`TOGETHER`] names fetched that nobody asked for before.
    pub fn fetch(&self) {
        let peer = self.client.local_addr().expect("it is bound");
        let client = Client { peer, local: None, transport: ClientTransport::Udp };
        self.tasks.block_on(&self.runtime, async {
            for _ in 0..TOGETHER {
                let mut query = self.query.borrow_mut();
                count_up(&mut query[NUMBER]);
                let reply_to = Some(ReplyTo::Udp(self.server.clone(), client));
                let miss = Miss::new(&query, self.zone.clone(), clock::nanoseconds(), None, reply_to);
                assert!(self.queue.try_send(miss).is_ok(), "the queue is full");
            }
            let mut reply = [0; 512];
            for _ in 0..TOGETHER {
                let len = self.client.recv(&mut reply).await.expect("a reply");
                assert_eq!((len, reply[3] & 15, reply[7]), (79, 0, 1), "{:?}", &reply[..12]);
            }
        });
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.upstream.kill();
        let _ = self.upstream.wait();
    }
}

fn count_up(digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        if *digit < b'9' {
            *digit += 1;
            return;
        }
        *digit = b'0';
    }
}

fn directive(port: u16) -> Config {
    let to = Target::plain(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    Config { transport: Transport::ForceTcp, ..Config::new(Name::root(), vec![to]) }
}

/// Answers every query over TCP with an address; says its port on standard output, and ends when standard
/// input does, as it does when the other process is gone.
pub fn upstream() -> io::Result<()> {
    thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        exit(0);
    });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("{}", listener.local_addr()?.port());
    for stream in listener.incoming() {
        let stream = stream?;
        // A connection that breaks is the client's matter.
        thread::spawn(move || drop(answer(stream)));
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut received, mut octets) = (Vec::new(), [0; 4096]);
    loop {
        let len = stream.read(&mut octets)?;
        if len == 0 {
            return Ok(());
        }
        received.extend_from_slice(&octets[..len]);
        let (mut replies, mut start) = (Vec::new(), 0);
        while let Some((length, rest)) = received[start..].split_first_chunk()
            && let Some(query) = rest.get(..usize::from(u16::from_be_bytes(*length)))
        {
            let reply = fixture::address(query);
            replies.extend(u16::try_from(reply.len()).map_err(io::Error::other)?.to_be_bytes());
            replies.extend(reply);
            start += 2 + query.len();
        }
        received.drain(..start);
        stream.write_all(&replies)?;
    }
}
