//! Memory that all threads read and write as atomic integers.

#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::{io, slice};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Zeroed integers of two widths. Pages cost memory only once they were written.
///
/// It is a memory file rather than the allocator's memory: its size is exact, nothing in it ever moves,
/// transparent huge pages do not inflate it, and it can outlive the process that filled it.
pub(super) struct Region {
    start: NonNull<u64>,
    words: usize,
    halves: usize,
}

impl Region {
    /// Room for `words` integers of 64 bits and `halves` of 32.
    pub fn new(words: usize, halves: usize) -> io::Result<Region> {
        let halves = halves.next_multiple_of(2);
        let octets = words * size_of::<u64>() + halves * size_of::<u32>();
        let file = memfd_create("doorstep-cache", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, octets as u64)?;
        let (access, how) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::NORESERVE);
        // SAFETY: the kernel chooses a free place.
        let start = unsafe { mmap(std::ptr::null_mut(), octets, access, how, &file, 0) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Region { start, words, halves })
    }

    /// The integers of 64 bits.
    #[inline]
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping begins with `words` aligned integers, lives as long as `self`, and is only
        // ever seen as atomics.
        unsafe { slice::from_raw_parts(self.start.as_ptr().cast(), self.words) }
    }

    /// The integers of 32 bits.
    #[inline]
    pub fn halves(&self) -> &[AtomicU32] {
        // SAFETY: as above; they follow the words.
        unsafe { slice::from_raw_parts(self.start.as_ptr().add(self.words).cast(), self.halves) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let octets = self.words * size_of::<u64>() + self.halves * size_of::<u32>();
        // SAFETY: this mapping was made by `new`, and no reference into it outlives `self`.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), octets) };
        debug_assert!(unmapped.is_ok());
    }
}

// SAFETY: a region is memory that belongs to nobody's thread, and all access to it is atomic.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}
