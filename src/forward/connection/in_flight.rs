//! The queries on a connection, by the id that each has there.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::task::{Context, Poll, Waker};

use smallvec::SmallVec;

use super::super::message;
use super::super::random::Random;

/// Ids in use at most, of 65 536: a random one is free at the first or second try.
pub(super) const MAX_IN_FLIGHT: usize = 4096;
/// Octets of a question for which nothing is allocated.
const USUAL_QUESTION: usize = 64;

/// See the [module](self).
#[derive(Default)]
pub(super) struct InFlight {
    queries: HashMap<u16, Query, foldhash::fast::RandomState>,
    /// How many the peer has yet to answer. CoreDNS answers in order, so a query that nobody waits for any more
    /// still stands before the others, and still counts.
    unanswered: usize,
    /// How many of those somebody waits for.
    waiting: usize,
    sent: u64,
    /// The latest query that was answered, by number.
    latest: u64,
}

struct Query {
    /// How many were sent before it.
    number: u64,
    /// Name, type and class.
    question: SmallVec<[u8; USUAL_QUESTION]>,
    progress: Progress,
}

enum Progress {
    /// Somebody waits, and is to be woken.
    Waiting(Option<Waker>),
    /// Nobody waits. The id stays taken: its answer may still come and must not meet another query.
    GivenUp,
    /// The answer, until it is taken.
    Answered(Vec<u8>),
}

/// Whether an answer came in its turn.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// Later queries' answers were not yet seen.
    InOrder,
    /// Another answer came before it, to a later query.
    Overtaken,
}

impl InFlight {
    /// Adds a query about `question`, and gives it an id that nobody can know.
    pub(super) fn add(&mut self, question: &[u8], random: &Random) -> u16 {
        let question = SmallVec::from_slice(question);
        let query = Query { number: self.sent, question, progress: Progress::Waiting(None) };
        self.sent += 1;
        self.unanswered += 1;
        self.waiting += 1;
        loop {
            let id = random.number();
            if let Entry::Vacant(free) = self.queries.entry(id) {
                free.insert(query);
                return id;
            }
        }
    }

    /// Hands `frame` to whoever waits for it. `None`: it answers nobody's question.
    pub(super) fn deliver(&mut self, frame: &[u8]) -> Option<Delivery> {
        let Entry::Occupied(mut entry) = self.queries.entry(message::id(frame)) else {
            return None;
        };
        let query = entry.get_mut();
        if !message::answers(frame, &query.question) {
            return None;
        }
        let number = query.number;
        match &mut query.progress {
            Progress::Answered(_) => return None,
            Progress::Waiting(waker) => {
                let waker = waker.take();
                query.progress = Progress::Answered(frame.to_vec());
                self.waiting -= 1;
                waker.inspect(Waker::wake_by_ref);
            }
            Progress::GivenUp => drop(entry.remove()),
        }
        self.unanswered -= 1;
        let overtaken = number < self.latest;
        self.latest = self.latest.max(number);
        Some(if overtaken { Delivery::Overtaken } else { Delivery::InOrder })
    }

    /// The answer to the query `id`; `None` when there will not be one.
    pub(super) fn poll_answer(&mut self, id: u16, context: &mut Context<'_>) -> Poll<Option<Vec<u8>>> {
        let Entry::Occupied(mut entry) = self.queries.entry(id) else {
            return Poll::Ready(None);
        };
        match &mut entry.get_mut().progress {
            Progress::Waiting(Some(waker)) if waker.will_wake(context.waker()) => Poll::Pending,
            Progress::Waiting(waker) => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
            Progress::GivenUp => Poll::Ready(None),
            Progress::Answered(_) => match entry.remove().progress {
                Progress::Answered(frame) => Poll::Ready(Some(frame)),
                _ => Poll::Ready(None),
            },
        }
    }

    /// Nobody waits for the query `id` any more. Whether somebody did.
    pub(super) fn give_up(&mut self, id: u16) -> bool {
        let Entry::Occupied(mut entry) = self.queries.entry(id) else {
            return false;
        };
        let waited = matches!(entry.get().progress, Progress::Waiting(_));
        if waited {
            entry.get_mut().progress = Progress::GivenUp;
            self.waiting -= 1;
        } else if matches!(entry.get().progress, Progress::Answered(_)) {
            entry.remove();
        }
        waited
    }

    /// No more answers will come. Those that came can still be taken.
    pub(super) fn close(&mut self) {
        for (_, query) in self.queries.extract_if(|_, query| !matches!(query.progress, Progress::Answered(_)))
        {
            if let Progress::Waiting(Some(waker)) = query.progress {
                waker.wake();
            }
        }
        self.unanswered = 0;
        self.waiting = 0;
    }

    /// Whether one more would be too many.
    pub(super) fn is_full(&self) -> bool {
        self.queries.len() >= MAX_IN_FLIGHT
    }

    /// How many the peer has yet to answer.
    pub(super) fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// How many of those somebody waits for.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many there were.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: &[u8] = b"\x03www\0\0\x01\0\x01";

    fn answer(id: u16, mark: u8) -> Vec<u8> {
        let mut answer = id.to_be_bytes().to_vec();
        answer.extend([0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        answer.extend(QUESTION);
        answer.push(mark);
        answer
    }

    fn take(queries: &mut InFlight, id: u16) -> Poll<Option<Vec<u8>>> {
        queries.poll_answer(id, &mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn the_first_answer_counts_and_is_taken_once() {
        let (mut queries, random) = (InFlight::default(), Random::new());
        let id = queries.add(QUESTION, &random);
        assert!(take(&mut queries, id).is_pending());
        assert_eq!(queries.deliver(&answer(id, 1)), Some(Delivery::InOrder));
        assert_eq!((queries.unanswered(), queries.waiting()), (0, 0));
        assert_eq!(queries.deliver(&answer(id, 2)), None);
        assert_eq!(take(&mut queries, id), Poll::Ready(Some(answer(id, 1))));
        assert_eq!(take(&mut queries, id), Poll::Ready(None));
        assert!(!queries.give_up(id));
    }

    #[test]
    fn an_end_keeps_the_answers_that_came() {
        let (mut queries, random) = (InFlight::default(), Random::new());
        let [early, late, gone] = [(); 3].map(|()| queries.add(QUESTION, &random));
        assert!(queries.give_up(gone));
        queries.deliver(&answer(early, 1)).unwrap();
        assert_eq!((queries.unanswered(), queries.waiting()), (2, 1));
        queries.close();
        assert_eq!((queries.unanswered(), queries.waiting()), (0, 0));
        assert_eq!(take(&mut queries, late), Poll::Ready(None));
        assert_eq!(take(&mut queries, early), Poll::Ready(Some(answer(early, 1))));
        assert!(queries.queries.is_empty());
    }

    #[test]
    fn an_id_stays_taken_until_nothing_can_come_for_it() {
        let (mut queries, random) = (InFlight::default(), Random::new());
        let [one, two] = [(); 2].map(|()| queries.add(QUESTION, &random));
        assert!(queries.give_up(one));
        assert!(!queries.give_up(one));
        assert_eq!((queries.queries.len(), queries.unanswered(), queries.waiting()), (2, 2, 1));
        assert_eq!(queries.deliver(&answer(two, 0)), Some(Delivery::InOrder));
        assert_eq!(queries.deliver(&answer(one, 0)), Some(Delivery::Overtaken));
        assert!(!queries.give_up(two));
        assert!(queries.queries.is_empty());
    }
}
