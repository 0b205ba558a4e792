//! Ending a thread's blocking receive from outside.

#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;

/// A signal that does nothing but end a blocking `recvmmsg` with `EINTR`.
///
/// A socket's own time-out would do too, but it belongs to the socket, which other threads and later
/// processes share.
pub struct Wake(libc::c_int);

impl Wake {
    /// Claims the signal `SIGURG`, which nobody sends by accident and which is ignored by default.
    pub fn install() -> io::Result<Wake> {
        extern "C" fn nothing(_: libc::c_int) {}
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: zero octets are a valid sigaction (no flags, so no SA_RESTART); the handler touches
        // nothing.
        let result = unsafe {
            (*action.as_mut_ptr()).sa_sigaction = nothing as *const () as libc::sighandler_t;
            libc::sigaction(libc::SIGURG, action.as_ptr(), std::ptr::null_mut())
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(Wake(libc::SIGURG)) }
    }

    /// Interrupts `thread`, which must not have been joined.
    pub fn interrupt<T>(&self, thread: &std::thread::JoinHandle<T>) {
        use std::os::unix::thread::JoinHandleExt;
        // SAFETY: a JoinHandle that was not joined keeps its pthread_t valid.
        unsafe { libc::pthread_kill(thread.as_pthread_t() as libc::pthread_t, self.0) };
    }
}
