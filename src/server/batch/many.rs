//! The system calls themselves, without libc's wrappers: musl's `sendmmsg` is a loop over `sendmsg`.

#![allow(unsafe_code)]

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::ptr;

/// Takes up to `count` datagrams into `headers` and says how many (recvmmsg(2)).
///
/// # Safety
///
/// `count` headers stand there; what they point to is writable, of the lengths they say, and not touched
/// by anyone else until the call returns.
#[inline]
pub(super) unsafe fn receive(
    socket: &UdpSocket,
    headers: *mut libc::mmsghdr,
    count: usize,
    flags: libc::c_int,
) -> io::Result<usize> {
    let forever = ptr::null_mut::<libc::timespec>();
    // SAFETY: as the caller says.
    let received =
        unsafe { libc::syscall(libc::SYS_recvmmsg, socket.as_raw_fd(), headers, count, flags, forever) };
    usize::try_from(received).map_err(|_| io::Error::last_os_error())
}

/// Sends `count` datagrams and says how many the kernel refused (sendmmsg(2)). One that it refuses (the
/// client's address is unreachable, a filter forbids it) does not keep the others back.
///
/// # Safety
///
/// `count` headers stand there, and what they point to is readable, of the lengths they say, until the call
/// returns.
#[inline]
pub(super) unsafe fn send(
    socket: &UdpSocket,
    headers: *mut libc::mmsghdr,
    count: usize,
    flags: libc::c_int,
) -> usize {
    let (mut sent, mut refused) = (0, 0);
    while sent < count {
        // SAFETY: as the caller says; `sent` is below `count`.
        let done = unsafe {
            let rest = headers.add(sent);
            libc::syscall(libc::SYS_sendmmsg, socket.as_raw_fd(), rest, count - sent, flags)
        };
        match usize::try_from(done) {
            Ok(done) => sent += done,
            Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            Err(_) => {
                sent += 1;
                refused += 1;
            }
        }
    }
    refused
}
