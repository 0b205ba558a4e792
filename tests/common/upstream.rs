//! A DNS server on loopback that does what a script says, for tests of the upstream side.

#![allow(dead_code, reason = "each suite uses its own part")]

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{Mutex, Notify};
use tokio::task::{JoinHandle, spawn_local};
use tokio_rustls::TlsAcceptor;

/// A query as the upstream saw it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Whether it came in a datagram.
    pub udp: bool,
    /// Who asks.
    pub peer: SocketAddr,
    /// The whole message.
    pub message: Vec<u8>,
    /// Its name, as text.
    pub name: String,
    /// Which connection it came on, from 0; 0 over UDP.
    pub connection: usize,
    /// The how manieth on its connection it is, from 0; over UDP, of all datagrams.
    pub turn: usize,
}

/// What the upstream does with a query, step by step.
#[derive(Debug, Clone)]
pub enum Step {
    /// Sends a message: a frame, or a datagram.
    Send(Vec<u8>),
    /// Sends octets without a length before them (the same as `Send` over UDP).
    Raw(Vec<u8>),
    /// Waits.
    Wait(Duration),
    /// Closes the connection with FIN.
    Close,
    /// Closes the connection with RST.
    Reset,
}

type Script = Rc<dyn Fn(&Asked) -> Vec<Step>>;

/// A running upstream, on one port for both transports. Dropping it closes its sockets.
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Rc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

struct Shared {
    script: Script,
    asked: RefCell<Vec<Asked>>,
    connections: Cell<usize>,
    /// Whether each connection's queries are worked on one after the other, as CoreDNS does.
    in_order: Cell<bool>,
    /// Tells connections to end.
    stopped: Notify,
}

impl Upstream {
    /// Starts on a free port.
    pub async fn start(script: impl Fn(&Asked) -> Vec<Step> + 'static) -> Upstream {
        loop {
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            // Another test may have the same port for UDP.
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                return Upstream::on(tcp, udp, None, script);
            }
        }
    }

    /// Starts at `address`, which must be free.
    pub async fn start_at(address: SocketAddr, script: impl Fn(&Asked) -> Vec<Step> + 'static) -> Upstream {
        let tcp = TcpListener::bind(address).await.unwrap();
        let udp = UdpSocket::bind(address).await.unwrap();
        Upstream::on(tcp, udp, None, script)
    }

    /// Starts as one of several at `address`, or at a free port: the kernel gives each connection to one
    /// of them, as a Service does.
    pub async fn start_beside(
        address: Option<SocketAddr>,
        script: impl Fn(&Asked) -> Vec<Step> + 'static,
    ) -> Upstream {
        let address = address.unwrap_or("127.0.0.1:0".parse().unwrap());
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(64).unwrap();
        // Not asked over UDP.
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        Upstream::on(TcpListener::from_std(socket.into()).unwrap(), udp, None, script)
    }

    /// Starts on a free port; a connection's next query is read when the last one has been answered.
    pub async fn start_in_order(script: impl Fn(&Asked) -> Vec<Step> + 'static) -> Upstream {
        let upstream = Upstream::start(script).await;
        upstream.shared.in_order.set(true);
        upstream
    }

    /// Starts with TLS on TCP.
    pub async fn start_tls(
        config: Arc<rustls::ServerConfig>,
        script: impl Fn(&Asked) -> Vec<Step> + 'static,
    ) -> Upstream {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        Upstream::on(tcp, udp, Some(TlsAcceptor::from(config)), script)
    }

    fn on(
        tcp: TcpListener,
        udp: UdpSocket,
        tls: Option<TlsAcceptor>,
        script: impl Fn(&Asked) -> Vec<Step> + 'static,
    ) -> Upstream {
        let shared = Rc::new(Shared {
            script: Rc::new(script),
            asked: RefCell::default(),
            connections: Cell::new(0),
            in_order: Cell::new(false),
            stopped: Notify::new(),
        });
        Upstream {
            address: tcp.local_addr().unwrap(),
            tasks: vec![
                spawn_local(accept(tcp, tls, Rc::clone(&shared))),
                spawn_local(receive(udp, Rc::clone(&shared))),
            ],
            shared,
        }
    }

    /// Every query that came, health checks (`. NS`) left out.
    pub fn asked(&self) -> Vec<Asked> {
        let asked = self.shared.asked.borrow();
        asked.iter().filter(|asked| asked.name != ".").cloned().collect()
    }

    /// The health checks that came.
    pub fn probes(&self) -> usize {
        let asked = self.shared.asked.borrow();
        asked.iter().filter(|asked| asked.name == ".").count()
    }

    /// Connections accepted.
    pub fn connections(&self) -> usize {
        self.shared.connections.get()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.shared.stopped.notify_waiters();
    }
}

async fn receive(socket: UdpSocket, shared: Rc<Shared>) {
    let socket = Rc::new(socket);
    let mut buffer = vec![0; 65535];
    for turn in 0.. {
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else {
            return;
        };
        let steps = shared.ask((true, peer), &buffer[..length], 0, turn);
        let socket = Rc::clone(&socket);
        spawn_local(async move {
            for step in steps {
                match step {
                    Step::Send(octets) | Step::Raw(octets) => {
                        socket.send_to(&octets, peer).await.unwrap();
                    }
                    Step::Wait(time) => tokio::time::sleep(time).await,
                    Step::Close | Step::Reset => return,
                }
            }
        });
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Rc<Shared>) {
    loop {
        let (stream, peer) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let number = shared.connections.get();
        shared.connections.set(number + 1);
        let (tls, shared) = (tls.clone(), Rc::clone(&shared));
        spawn_local(async move {
            let socket = SockRef::from(&stream).try_clone().unwrap();
            match tls {
                None => serve(stream, (number, peer), &shared, socket).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(stream, (number, peer), &shared, socket).await;
                    }
                }
            }
        });
    }
}

async fn serve<S>(stream: S, (number, peer): (usize, SocketAddr), shared: &Shared, socket: socket2::Socket)
where
    S: AsyncRead + AsyncWrite + 'static,
{
    let (mut reader, writer) = tokio::io::split(stream);
    let writer = Rc::new(Mutex::new(writer));
    let closing = Rc::new(Notify::new());
    let socket = Rc::new(socket);
    let mut running = Vec::new();
    for turn in 0.. {
        let message = tokio::select! {
            message = frame(&mut reader) => message,
            () = closing.notified() => break,
            () = shared.stopped.notified() => break,
        };
        let Ok(message) = message else { break };
        let steps = shared.ask((false, peer), &message, number, turn);
        let (writer, closing) = (Rc::clone(&writer), Rc::clone(&closing));
        let socket = Rc::clone(&socket);
        let work = async move {
            for step in steps {
                let octets = match step {
                    Step::Send(message) => framed(&message),
                    Step::Raw(octets) => octets,
                    Step::Wait(time) => {
                        tokio::time::sleep(time).await;
                        continue;
                    }
                    Step::Close => return closing.notify_one(),
                    Step::Reset => {
                        socket.set_linger(Some(Duration::ZERO)).unwrap();
                        return closing.notify_one();
                    }
                };
                let mut writer = writer.lock().await;
                let _ = writer.write_all(&octets).await;
                let _ = writer.flush().await;
            }
        };
        if shared.in_order.get() {
            work.await;
        } else {
            running.push(spawn_local(work));
        }
    }
    for task in running {
        task.abort();
        let _ = task.await;
    }
}

async fn frame(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut message = vec![0; usize::from(reader.read_u16().await?)];
    reader.read_exact(&mut message).await?;
    Ok(message)
}

impl Shared {
    fn ask(
        &self,
        (udp, peer): (bool, SocketAddr),
        message: &[u8],
        connection: usize,
        turn: usize,
    ) -> Vec<Step> {
        let asked = Asked { udp, peer, message: message.to_vec(), name: name(message), connection, turn };
        self.asked.borrow_mut().push(asked.clone());
        (self.script)(&asked)
    }
}

impl Asked {
    /// An address record for the name.
    pub fn answer(&self) -> Vec<u8> {
        let mut reply = self.reply(0);
        reply[7] = 1;
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 192, 0, 2, 7]);
        reply
    }

    /// A reply without records: header and question.
    pub fn reply(&self, rcode: u8) -> Vec<u8> {
        let mut reply = self.message[..question_end(&self.message)].to_vec();
        reply[2] |= 0x80;
        reply[3] = 0x80 | rcode;
        reply[6..12].fill(0);
        reply
    }
}

/// A frame as it stands on the wire.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap();
    [&length.to_be_bytes()[..], message].concat()
}

/// An address query without EDNS.
pub fn query(id: u16, name: &str) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// The same with an OPT record.
pub fn query_edns(id: u16, name: &str) -> Vec<u8> {
    let mut message = query(id, name);
    message[11] = 1;
    message.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    message
}

fn question_end(message: &[u8]) -> usize {
    let mut at = 12;
    while message[at] != 0 {
        at += 1 + usize::from(message[at]);
    }
    at + 5
}

fn name(message: &[u8]) -> String {
    let mut text = String::new();
    let mut at = 12;
    while message[at] != 0 {
        let length = usize::from(message[at]);
        text.push_str(&String::from_utf8_lossy(&message[at + 1..][..length]));
        text.push('.');
        at += 1 + length;
    }
    if text.is_empty() { ".".into() } else { text }
}
