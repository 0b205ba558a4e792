//! capabilities(7) of the calling thread.

use rustix::io::{Errno, Result};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities,
};

use super::Extent;

/// Gives up what is not in `held`, and for programs that are started what is not in `attainable`.
///
/// The ambient set needs no call: the kernel keeps it within the permitted and the inheritable one.
pub fn limit(held: CapabilitySet, attainable: CapabilitySet) -> Result<Extent> {
    // First, for it takes CAP_SETPCAP.
    let bounded = bound(attainable)?;
    let now = capabilities(None)?;
    let limited = CapabilitySets {
        effective: now.effective & held,
        permitted: now.permitted & held,
        inheritable: now.inheritable & held,
    };
    set_capabilities(None, limited)?;
    Ok(bounded)
}

fn bound(attainable: CapabilitySet) -> Result<Extent> {
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match capability_is_in_bounding_set(capability) {
            // Past the last one that this kernel knows.
            Err(Errno::INVAL) => break,
            Ok(true) if !attainable.contains(capability) => {}
            other => {
                other?;
                continue;
            }
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            Err(Errno::PERM) => {
                return Ok(Extent::Part("the bounding set stays, for want of CAP_SETPCAP".into()));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Extent::Whole)
}
