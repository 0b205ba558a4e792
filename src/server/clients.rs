//! What each client has under way, so that none takes more than its share.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// Clients remembered at most; on a node there are as many as pods.
const CLIENTS: u64 = 16_384;
/// A client that did nothing for this long is forgotten.
const IDLE: Duration = Duration::from_secs(60);

/// Counts per client address, bounded in number.
pub struct Clients {
    share: u32,
    table: moka::sync::Cache<IpAddr, Arc<AtomicU32>>,
}

/// One thing under way; over when dropped.
#[derive(Debug)]
pub struct Pass(Arc<AtomicU32>);

impl Clients {
    /// Lets each client have `share` things under way.
    pub fn new(share: u32) -> Clients {
        let table = moka::sync::Cache::builder().max_capacity(CLIENTS).time_to_idle(IDLE).build();
        Clients { share, table }
    }

    /// One more for `client`; `None` when it has its share.
    pub fn enter(&self, client: IpAddr) -> Option<Pass> {
        let count = self.table.get_with(client, Arc::default);
        if count.fetch_add(1, Relaxed) >= self.share {
            count.fetch_sub(1, Relaxed);
            return None;
        }
        Some(Pass(count))
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_its_own_share() {
        let clients = Clients::new(2);
        let [a, b] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
        let first = clients.enter(a).unwrap();
        let _second = clients.enter(a).unwrap();
        assert!(clients.enter(a).is_none());
        assert!(clients.enter(b).is_some());
        drop(first);
        assert!(clients.enter(a).is_some());
    }
}
