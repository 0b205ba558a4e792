//! Who was refused, told to the operator.

use std::net::IpAddr;
use std::time::Duration;

use moka::sync::Cache;

/// A client is named once in this time.
const QUIET: Duration = Duration::from_secs(60);
/// Clients remembered at most: so many pods misbehaving at once are one fault, not many.
const MOST: u64 = 1024;

/// Names clients that were refused in the log, so that the pod behind a flood can be found; metrics have no
/// room for addresses. Any thread may tell it, and as often as it likes.
pub struct Refusals {
    named: Cache<IpAddr, ()>,
}

impl Default for Refusals {
    fn default() -> Refusals {
        Refusals { named: Cache::builder().max_capacity(MOST).time_to_live(QUIET).build() }
    }
}

impl Refusals {
    /// Says that `client` was refused because of `why`, unless it was said lately.
    pub fn note(&self, client: IpAddr, why: &str) {
        if self.is_news(client) {
            tracing::warn!("client {client} is refused queries: {why}");
        }
    }

    fn is_news(&self, client: IpAddr) -> bool {
        !self.named.contains_key(&client) && self.named.entry(client).or_insert(()).is_fresh()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_is_named_once() {
        let refusals = Refusals::default();
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        assert!(refusals.is_news(one));
        assert!(!refusals.is_news(one));
        assert!(refusals.is_news(other));
        assert!(!refusals.is_news(one));
    }
}
