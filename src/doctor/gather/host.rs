//! Where facts are read from: the machine, or in tests a directory.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::node::command;
use crate::node::links::{self, Listed};
use crate::node::nftables::survey::{Survey, survey};

/// How long a tool may take.
const TOOL: Duration = Duration::from_secs(10);
/// How long an HTTP endpoint on this node may take.
const ANSWER: Duration = Duration::from_secs(2);
/// Longest file or answer that is read whole.
const LONGEST: u64 = 16 << 20;
/// A question about nothing, with the opcode STATUS, which no server implements: whoever is there says so at
/// once (NOTIMP or FORMERR), from no cache and without an upstream.
const PING: [u8; 17] = [0xd0, 0xc5, 0x10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1];

/// What can be looked at. Paths are absolute; nothing is changed.
pub trait Host {
    /// A file's text, invalid UTF-8 replaced.
    fn text(&self, path: &str) -> io::Result<String>;
    /// A file's lines one after the other, for files of any length.
    fn lines(&self, path: &str, each: &mut dyn FnMut(&str)) -> io::Result<()>;
    /// The names in a directory, in no order.
    fn names(&self, directory: &str) -> io::Result<Vec<String>>;
    /// Where a symbolic link points.
    fn target(&self, link: &str) -> io::Result<String>;
    /// A file as `/proc/locks` names it: `fe:00:6627483`.
    fn file_id(&self, path: &str) -> io::Result<String>;
    /// What a program prints; an error if it cannot be run or fails.
    fn run(&self, program: &str, arguments: &[&str]) -> io::Result<String>;
    /// The links of this network namespace.
    fn links(&self) -> Result<Vec<Listed>, String>;
    /// All nftables rules that concern us.
    fn nftables(&self) -> Result<Survey, String>;
    /// Whether anything answers DNS over UDP.
    fn ping(&self, address: SocketAddr) -> io::Result<()>;
    /// Status and body of an HTTP GET.
    fn get(&self, address: SocketAddr, path: &str) -> io::Result<(u16, String)>;
}

/// The machine this process runs on.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Where `/proc`, `/sys`, `/etc`, `/run`, `/var` and `/lib` are: `/`, or the node's file system where a
    /// container has it mounted.
    pub root: PathBuf,
}

impl Machine {
    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

impl Host for Machine {
    fn text(&self, path: &str) -> io::Result<String> {
        let mut bytes = Vec::new();
        fs::File::open(self.path(path))?.take(LONGEST).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn lines(&self, path: &str, each: &mut dyn FnMut(&str)) -> io::Result<()> {
        let file = BufReader::new(fs::File::open(self.path(path))?);
        file.lines().try_for_each(|line| line.map(|line| each(&line)))
    }

    fn names(&self, directory: &str) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(self.path(directory))?;
        Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    }

    fn target(&self, link: &str) -> io::Result<String> {
        Ok(fs::read_link(self.path(link))?.to_string_lossy().into_owned())
    }

    fn file_id(&self, path: &str) -> io::Result<String> {
        let file = fs::metadata(self.path(path))?;
        let (major, minor) = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
        Ok(format!("{major:02x}:{minor:02x}:{}", file.ino()))
    }

    fn run(&self, program: &str, arguments: &[&str]) -> io::Result<String> {
        let output = command::run(program, arguments, "", TOOL)?;
        match output.status.success() {
            true => Ok(output.stdout),
            false => Err(io::Error::other(output.stderr.lines().next().unwrap_or("it failed").to_owned())),
        }
    }

    fn links(&self) -> Result<Vec<Listed>, String> {
        links::list().map_err(|error| error.to_string())
    }

    fn nftables(&self) -> Result<Survey, String> {
        survey().map_err(|error| error.to_string())
    }

    fn ping(&self, address: SocketAddr) -> io::Result<()> {
        let unspecified = if address.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        let socket = UdpSocket::bind((unspecified, 0))?;
        socket.connect(address)?;
        socket.set_read_timeout(Some(ANSWER))?;
        socket.send(&PING)?;
        socket.recv(&mut [0; 512]).map(|_| ())
    }

    fn get(&self, address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.take(LONGEST).read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).trim();
        status
            .map(|status| (status, body.to_owned()))
            .ok_or_else(|| io::Error::other("the answer is not HTTP"))
    }
}
