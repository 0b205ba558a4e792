//! Who asks for which block.

use std::collections::HashMap;
use std::rc::Rc;

use futures_util::future::LocalBoxFuture;

use crate::forward::{Chain, ClientTransport, ForwardError};
use crate::server::zones::BlockId;

/// Asks an upstream. [`Chain`] does, and so do the scripts of the tests.
pub trait Resolve {
    /// The reply to `message`, a whole query; `name` is its question's in folded wire octets.
    fn resolve<'a>(
        &'a self,
        message: &'a [u8],
        name: &'a [u8],
        client: ClientTransport,
    ) -> LocalBoxFuture<'a, Result<Vec<u8>, ForwardError>>;
}

impl Resolve for Chain {
    fn resolve<'a>(
        &'a self,
        message: &'a [u8],
        name: &'a [u8],
        client: ClientTransport,
    ) -> LocalBoxFuture<'a, Result<Vec<u8>, ForwardError>> {
        Box::pin(Chain::resolve(self, message, name, client))
    }
}

/// The upstreams of this configuration's blocks, and of the one before.
#[derive(Default)]
pub(super) struct Upstreams {
    current: HashMap<BlockId, Rc<dyn Resolve>>,
    previous: HashMap<BlockId, Rc<dyn Resolve>>,
}

impl Upstreams {
    pub fn succeed(&mut self, upstreams: HashMap<BlockId, Rc<dyn Resolve>>) {
        self.previous = std::mem::replace(&mut self.current, upstreams);
    }

    pub fn get(&self, block: BlockId) -> Option<Rc<dyn Resolve>> {
        self.current.get(&block).or_else(|| self.previous.get(&block)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::NoMetrics;

    /// Allocations above 1 032 octets leave malloc's fast path (glibc's tcache).
    #[test]
    fn a_query_on_its_way_is_small() {
        let chain = Chain::new(&[], Rc::new(NoMetrics)).unwrap();
        let size = size_of_val(&Chain::resolve(&chain, &[], &[], ClientTransport::Udp));
        assert!(size <= 1032, "{size} octets");
    }
}
