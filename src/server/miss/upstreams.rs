//! Who asks for which block.

use std::future::Future;
use std::rc::Rc;

use crate::forward::{Chain, ClientTransport, ForwardError};
use crate::server::zones::BlockId;

/// Asks an upstream. [`Chain`] does, and so do the scripts of the tests.
pub trait Resolve: 'static {
    /// The reply to `message`, a whole query; `name` is its question's in folded wire octets.
    fn resolve(
        &self,
        message: &[u8],
        name: &[u8],
        client: ClientTransport,
    ) -> impl Future<Output = Result<Vec<u8>, ForwardError>>;
}

impl Resolve for Chain {
    fn resolve(
        &self,
        message: &[u8],
        name: &[u8],
        client: ClientTransport,
    ) -> impl Future<Output = Result<Vec<u8>, ForwardError>> {
        Chain::resolve(self, message, name, client)
    }
}

/// The upstreams of this configuration's blocks, which are few, and of the one before.
pub(super) struct Upstreams<R> {
    current: Vec<(BlockId, Rc<R>)>,
    previous: Vec<(BlockId, Rc<R>)>,
}

impl<R> Default for Upstreams<R> {
    fn default() -> Upstreams<R> {
        Upstreams { current: Vec::new(), previous: Vec::new() }
    }
}

impl<R> Upstreams<R> {
    pub fn succeed(&mut self, upstreams: impl IntoIterator<Item = (BlockId, Rc<R>)>) {
        self.previous = std::mem::replace(&mut self.current, upstreams.into_iter().collect());
    }

    pub fn get(&self, block: BlockId) -> Option<Rc<R>> {
        let found = self.current.iter().chain(&self.previous).find(|(id, _)| *id == block);
        found.map(|(_, upstreams)| Rc::clone(upstreams))
    }
}
