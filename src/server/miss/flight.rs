//! A question on its way to an upstream, and those who wait for the answer.

use std::cell::Cell;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;

use super::ask::Ask;
use super::landing::Landing;
use super::places::Slot;
use super::{Misses, Resolve, Waiter};
use crate::forward::{ClientTransport, ForwardError};
use crate::plugin::Outcome;
use crate::server::inflight::FlightKey;
use crate::server::zones::Zone;
use crate::wire::{Query, Rcode};

/// See the [module](self).
pub(super) struct Flight<R: Resolve> {
    pub(super) passengers: Passengers<R>,
    pub(super) zone: Arc<Zone>,
    pub(super) ask: Ask,
    pub(super) _slot: Slot,
}

/// Those who wait. Dropped, they get a SERVFAIL: whatever happens to the flight, nobody waits for ever.
pub(super) struct Passengers<R: Resolve> {
    misses: Rc<Misses<R>>,
    /// Who asked first.
    leader: Option<Waiter>,
    /// Under which others may follow.
    key: Option<FlightKey>,
}

impl<R: Resolve> Flight<R> {
    /// Once; by reference, because to move a flight costs as much as much of what it does.
    pub(super) async fn fly(&mut self) {
        let result = ask_upstream(&mut self.passengers, &self.zone, &self.ask).await;
        let Flight { passengers, zone, ask, .. } = self;
        let misses = Rc::clone(&passengers.misses);
        let landing = misses.land(&zone.block, zone, ask, result);
        if landing.is_failure() {
            misses.note_failure(&zone.block, ask);
        }
        passengers.leave(&landing);
        if let Some(client) = ask.searcher.filter(|_| landing.is_name_error()) {
            misses.fetch_ahead(zone, ask, client);
        }
    }
}

/// The reply, however long it takes; those who need not wait for it are let off.
async fn ask_upstream<R: Resolve>(
    passengers: &mut Passengers<R>,
    zone: &Zone,
    ask: &Ask,
) -> Result<Outcome, ForwardError> {
    let misses = Rc::clone(&passengers.misses);
    let block = &zone.block;
    let lookups = Cell::new(LOOKUPS);
    let mut reply = pin!(resolve(&misses, zone, &ask.message, ask.name(), ask.transport, &lookups));
    let serve_stale = block.cache.as_ref().and_then(|cache| cache.config().serve_stale);
    let Some(patience) = serve_stale.and_then(|stale| stale.patience()) else {
        return reply.await;
    };
    loop {
        match tokio::time::timeout(patience, &mut reply).await {
            Ok(result) => return result,
            Err(_) => {
                passengers.misses.note_failure(block, ask);
                passengers.serve_stale();
            }
        }
    }
}

/// How often in all the server may be sent to a block for what is behind an alias, for one query.
const LOOKUPS: usize = 8;

/// What the block of `zone` makes of `message`, whose name is `name` in folded wire octets.
async fn resolve<R: Resolve>(
    misses: &Misses<R>,
    zone: &Zone,
    message: &[u8],
    name: &[u8],
    transport: ClientTransport,
    lookups: &Cell<usize>,
) -> Result<Outcome, ForwardError> {
    let upstream = misses.upstreams.borrow().get(zone.block.id);
    let forward = async |message: &[u8], name: &[u8]| match &upstream {
        Some(upstream) => upstream.resolve(message, name, transport).await,
        None => Err(ForwardError::NotForwarded),
    };
    let look_up = async |message: &[u8], name: &[u8]| {
        lookups.set(lookups.get().checked_sub(1)?);
        look_up(misses, zone, message, name, transport, lookups).await
    };
    zone.block.steps.resolve(message, name, &zone.server, forward, look_up).await
}

/// The reply of whichever block on the address of `zone` serves `name`. Boxed, for it comes back to where it
/// was called.
fn look_up<'a, R: Resolve>(
    misses: &'a Misses<R>,
    zone: &'a Zone,
    message: &'a [u8],
    name: &'a [u8],
    transport: ClientTransport,
    lookups: &'a Cell<usize>,
) -> Pin<Box<dyn Future<Output = Option<Vec<u8>>> + 'a>> {
    Box::pin(async move {
        let qtype = Query::parse(message).ok()?.qtype();
        let zone = zone.siblings.upgrade()?.find(name, qtype)?.clone();
        match resolve(misses, &zone, message, name, transport, lookups).await {
            Ok(Outcome::Reply { message, .. }) => Some(message),
            _ => None,
        }
    })
}

impl<R: Resolve> Passengers<R> {
    /// `leader`, and whoever follows under `key` from now on.
    pub(super) fn new(misses: &Rc<Misses<R>>, leader: Waiter, key: Option<FlightKey>) -> Passengers<R> {
        if let Some(key) = &key {
            misses.inflight.lead(key.clone());
        }
        Passengers { misses: Rc::clone(misses), leader: Some(leader), key }
    }

    /// Whoever has an expired answer at hand gets it now (RFC 8767 §5, client response timer).
    fn serve_stale(&mut self) {
        let Some(key) = &self.key else { return };
        let has_stale = |waiter: &Waiter| waiter.miss.stale.is_some();
        let followers = self.misses.inflight.leave(key, has_stale);
        self.misses.reply_to_each(self.leader.iter().filter(|leader| has_stale(leader)), &failed());
        self.misses.reply_to_each(&followers, &failed());
        self.leader.take_if(|leader| has_stale(leader));
    }

    /// All get what `landing` means for them.
    fn leave(&mut self, landing: &Landing) {
        let followers = self.key.take().map(|key| self.misses.inflight.land(&key)).unwrap_or_default();
        self.misses.reply_to_each(&self.leader, landing);
        self.misses.reply_to_each(&followers, landing);
        self.leader = None;
    }
}

fn failed() -> Landing {
    Landing::Failed(Rcode::SERVFAIL, None)
}

impl<R: Resolve> Drop for Passengers<R> {
    fn drop(&mut self) {
        self.leave(&failed());
    }
}
