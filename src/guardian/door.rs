//! Where a successor knocks: a unix socket in a directory that survives both processes.

use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
};
use rustix::process::geteuid;

use super::channel::Channel;

const SOCKET: &str = "doorstep.sock";
/// Write permission for others than the owner.
const OTHERS_WRITE: u32 = 0o022;

/// A listening socket.
#[derive(Debug)]
pub struct Door {
    socket: OwnedFd,
}

/// Why there is no hand-over.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// The directory cannot be made or looked at.
    #[error("{}: {source}", .path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// Somebody else could put a socket there.
    #[error(
        "{}: belongs to user {owner} with mode {mode:o}; who may write there could take over the node's \
         DNS: make it `chown {uid}`, `chmod 0700`", .path.display()
    )]
    Permissions {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Its permissions.
        mode: u32,
        /// Who we are.
        uid: u32,
    },
    /// The other side is not the user that this process is.
    #[error("the process at the other end belongs to user {0}")]
    Stranger(u32),
    /// The socket could not be had.
    #[error(transparent)]
    Socket(#[from] Errno),
}

/// Connects to the process that serves with `directory`; `None`: there is none.
pub fn knock(directory: &Path) -> Result<Option<Channel>, DoorError> {
    prepare(directory)?;
    let socket = new_socket()?;
    match connect(&socket, &SocketAddrUnix::new(directory.join(SOCKET))?) {
        Ok(()) => admit(socket).map(Some),
        // Nothing there, or what a process left that was killed.
        Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Door {
    /// Listens in `directory`, in the place of whoever did until now.
    pub fn open(directory: &Path) -> Result<Door, DoorError> {
        prepare(directory)?;
        let socket = new_socket()?;
        // Bound beside and renamed: there is no moment without a socket of that name.
        let beside = directory.join(format!(".{SOCKET}.{}", std::process::id()));
        let _ = fs::remove_file(&beside);
        bind(&socket, &SocketAddrUnix::new(&beside)?)?;
        listen(&socket, 4)?;
        let path = directory.join(SOCKET);
        fs::rename(&beside, &path).map_err(|source| {
            let _ = fs::remove_file(&beside);
            DoorError::Directory { path, source }
        })?;
        Ok(Door { socket })
    }

    /// Who knocks.
    pub fn accept(&self) -> Result<Channel, DoorError> {
        admit(accept_with(&self.socket, SocketFlags::CLOEXEC)?)
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn new_socket() -> rustix::io::Result<OwnedFd> {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

fn admit(socket: OwnedFd) -> Result<Channel, DoorError> {
    let peer = socket_peercred(&socket)?.uid;
    if peer != geteuid() {
        return Err(DoorError::Stranger(peer.as_raw()));
    }
    Ok(Channel::new(socket))
}

/// Makes the directory if need be, and checks that it is ours alone.
fn prepare(directory: &Path) -> Result<(), DoorError> {
    let error = |source| DoorError::Directory { path: directory.to_owned(), source };
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => return Err(error(source)),
        _ => {}
    }
    // Not through a symbolic link, which whoever made it can turn elsewhere.
    let metadata = fs::symlink_metadata(directory).map_err(error)?;
    let uid = geteuid().as_raw();
    if !is_ours(&metadata, uid) {
        let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
        return Err(DoorError::Permissions { path: directory.to_owned(), owner, mode, uid });
    }
    Ok(())
}

fn is_ours(metadata: &Metadata, uid: u32) -> bool {
    metadata.is_dir() && metadata.uid() == uid && metadata.mode() & OTHERS_WRITE == 0
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::guardian::message::Message;

    #[test]
    fn who_knocks_is_let_in_and_the_newest_door_counts() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("doorstep");
        assert!(knock(&place).unwrap().is_none());
        let first = Door::open(&place).unwrap();
        let second = Door::open(&place).unwrap();
        let visitor = knock(&place).unwrap().unwrap();
        visitor.send(&Message::Taken).unwrap();
        assert!(matches!(second.accept().unwrap().receive(), Ok(Message::Taken)));
        drop((first, second));
        assert!(knock(&place).unwrap().is_none(), "a dead process's socket");
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = knock(directory.path()).unwrap_err().to_string();
        assert!(error.contains("mode 777"), "{error}");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/tmp", &link).unwrap();
        assert!(Door::open(&link).is_err());
    }
}
