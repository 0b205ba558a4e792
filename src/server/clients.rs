//! What each client has under way, so that none takes more than its share.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

type Counts = HashMap<IpAddr, u32, foldhash::fast::RandomState>;

/// Counts per client address, of those that have anything under way.
pub struct Clients {
    share: u32,
    counts: Rc<RefCell<Counts>>,
}

/// One thing under way; over when dropped.
#[derive(Debug)]
pub struct Pass {
    client: IpAddr,
    counts: Rc<RefCell<Counts>>,
}

impl Clients {
    /// Lets each client have `share` things under way.
    pub fn new(share: u32) -> Clients {
        Clients { share, counts: Rc::default() }
    }

    /// Whether `client` has half of its share or more.
    pub fn is_half_full(&self, client: IpAddr) -> bool {
        self.counts.borrow().get(&client).is_some_and(|count| count.saturating_mul(2) >= self.share)
    }

    /// One more for `client`; `None` when it has its share.
    pub fn enter(&self, client: IpAddr) -> Option<Pass> {
        let mut counts = self.counts.borrow_mut();
        let count = counts.entry(client).or_default();
        if *count >= self.share {
            return None;
        }
        *count += 1;
        Some(Pass { client, counts: Rc::clone(&self.counts) })
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut counts = self.counts.borrow_mut();
        if let Some(count) = counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
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
        let second = clients.enter(a).unwrap();
        assert!(clients.enter(a).is_none());
        assert!(clients.is_half_full(a) && !clients.is_half_full(b));
        assert!(clients.enter(b).is_some());
        drop(first);
        let third = clients.enter(a).unwrap();
        drop((second, third));
        assert!(clients.counts.borrow().is_empty(), "who has nothing under way is forgotten");
    }
}
