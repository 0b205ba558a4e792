//! Where a reply is written before it is sent.

use std::cell::RefCell;

use crate::wire::REPLY_ROOM;

/// From this size on, glibc's and musl's allocators hand on memory from the kernel as it comes: zeroed, and
/// not there before it is written to. Below it, musl writes the zeros itself.
const FROM_THE_KERNEL: usize = 132 * 1024;
const _: () = assert!(REPLY_ROOM <= FROM_THE_KERNEL);

/// At least [`REPLY_ROOM`] octets, of which only those that are used cost memory.
pub(super) fn scratch() -> RefCell<Vec<u8>> {
    RefCell::new(vec![0; FROM_THE_KERNEL])
}
