//! Memory that all threads read and write as atomic integers.

#![allow(unsafe_code)]

use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::{io, slice};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

const SIZE_STAYS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// Zeroed integers of two widths. Pages cost memory only once they were written.
///
/// It is a memory file rather than the allocator's memory: its size is exact, nothing in it ever moves,
/// transparent huge pages do not inflate it, and it can outlive the process that filled it.
pub(super) struct Region {
    file: OwnedFd,
    start: NonNull<u64>,
    words: usize,
    halves: usize,
}

impl Region {
    /// Room for `words` integers of 64 bits and `halves` of 32.
    pub fn new(words: usize, halves: usize) -> io::Result<Region> {
        let file = memfd_create("doorstep-cache", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, octets(words, halves) as u64)?;
        fcntl_add_seals(&file, SIZE_STAYS)?;
        Region::map(file, words, halves, ProtFlags::READ | ProtFlags::WRITE)
    }

    /// The region of another process, which may go on writing to it; to be read only.
    ///
    /// Fails if `file` is not as large, or could become smaller: touching what is gone is fatal.
    pub fn open(file: OwnedFd, words: usize, halves: usize) -> io::Result<Region> {
        let size = u64::try_from(fstat(&file)?.st_size).unwrap_or(0);
        if size < octets(words, halves) as u64 || !fcntl_get_seals(&file)?.contains(SealFlags::SHRINK) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Region::map(file, words, halves, ProtFlags::READ)
    }

    fn map(file: OwnedFd, words: usize, halves: usize, access: ProtFlags) -> io::Result<Region> {
        let how = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: the kernel chooses a free place.
        let start = unsafe { mmap(std::ptr::null_mut(), octets(words, halves), access, how, &file, 0) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Region { file, start, words, halves: halves.next_multiple_of(2) })
    }

    /// The memory, for another process.
    pub fn file(&self) -> &OwnedFd {
        &self.file
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

fn octets(words: usize, halves: usize) -> usize {
    words * size_of::<u64>() + halves.next_multiple_of(2) * size_of::<u32>()
}

impl Drop for Region {
    fn drop(&mut self) {
        let octets = octets(self.words, self.halves);
        // SAFETY: this mapping was made by `map`, and no reference into it outlives `self`.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), octets) };
        debug_assert!(unmapped.is_ok());
    }
}

// SAFETY: a region is memory that belongs to nobody's thread, and all access to it is atomic.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}
