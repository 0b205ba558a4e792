//! DNS clients that send octets as they are told to.

#![allow(dead_code, reason = "each suite uses its own part")]

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use super::message::{Answer, Ask};

/// How long an answer that must come may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait for what must not come.
pub const SILENCE: Duration = Duration::from_millis(200);

/// A UDP client with a socket of its own.
pub struct Udp(pub UdpSocket);

impl Udp {
    /// A client whose answers must come from `server`, for the kernel drops all others.
    pub fn to(server: SocketAddr) -> Udp {
        let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
        Udp(bound(any, server))
    }

    pub fn send(&self, message: &[u8]) {
        self.0.send(message).unwrap();
    }

    /// The next datagram.
    #[track_caller]
    pub fn receive(&self) -> Vec<u8> {
        self.try_receive().expect("an answer")
    }

    /// Panics if a datagram comes within [`SILENCE`].
    #[track_caller]
    pub fn expect_silence(&self) {
        self.0.set_read_timeout(Some(SILENCE)).unwrap();
        let answer = self.try_receive().ok();
        assert_eq!(answer, None, "an answer to what must not be answered");
        self.0.set_read_timeout(Some(PATIENCE)).unwrap();
    }

    fn try_receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; 65535];
        let length = self.0.recv(&mut buffer)?;
        buffer.truncate(length);
        Ok(buffer)
    }
}

/// A UDP socket at `local` that talks to `server`.
pub fn bound(local: IpAddr, server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((local, 0)).unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Asks over UDP.
#[track_caller]
pub fn udp(server: SocketAddr, query: &Ask) -> Answer {
    Answer::read(&udp_octets(server, &query.build()))
}

/// Sends any octets over UDP and returns the answer's.
#[track_caller]
pub fn udp_octets(server: SocketAddr, message: &[u8]) -> Vec<u8> {
    let client = Udp::to(server);
    client.send(message);
    client.receive()
}

/// Asks over a TCP connection of its own.
#[track_caller]
pub fn tcp(server: SocketAddr, query: &Ask) -> Answer {
    let mut client = Tcp::to(server);
    client.send(&query.build());
    Answer::read(&client.receive())
}

/// A TCP client.
pub struct Tcp(pub TcpStream);

impl Tcp {
    pub fn to(server: SocketAddr) -> Tcp {
        Tcp::over(TcpStream::connect(server).unwrap())
    }

    /// A client with `local` as its address.
    pub fn from(local: IpAddr, server: SocketAddr) -> io::Result<Tcp> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(server), socket2::Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(local, 0).into())?;
        socket.connect(&server.into())?;
        Ok(Tcp::over(socket.into()))
    }

    fn over(stream: TcpStream) -> Tcp {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Tcp(stream)
    }

    /// Sends a message as a frame.
    pub fn send(&mut self, message: &[u8]) {
        self.0.write_all(&framed(message)).unwrap();
    }

    /// The next frame.
    #[track_caller]
    pub fn receive(&mut self) -> Vec<u8> {
        self.try_receive().expect("an answer")
    }

    pub fn try_receive(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 2];
        self.0.read_exact(&mut length)?;
        let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
        self.0.read_exact(&mut message)?;
        Ok(message)
    }

    /// Reads until the server closes. Panics if it does not within [`PATIENCE`].
    #[track_caller]
    pub fn expect_closed(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("the connection stays open"),
            // Closed with octets of ours unread, or in the middle of our writing.
            Ok(_) | Err(_) => rest,
        }
    }
}

/// A frame as it stands on the wire.
pub fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}
