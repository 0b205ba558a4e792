use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::join_all;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

use super::super::metrics::NoMetrics;
use super::in_flight::MAX_IN_FLIGHT;
use super::*;

const EXPIRE: Duration = Duration::from_secs(10);

/// Runs a test whose clock jumps ahead when everybody waits.
fn run(test: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

fn start() -> (Rc<Connection>, DuplexStream) {
    let (near, far) = duplex(1 << 20);
    (Connection::start(near, &remote(), 0, EXPIRE), far)
}

fn remote() -> Rc<Remote> {
    Rc::new(Remote {
        to: "192.0.2.1:53".parse().unwrap(),
        protocol: Protocol::Tcp,
        expire: EXPIRE,
        max_queries: Some(4),
        overtaken: Cell::default(),
        flow: Default::default(),
        slow: Cell::default(),
        random: Rc::new(Random::new()),
        metrics: Rc::new(NoMetrics),
    })
}

/// A header-only message under `id`, with `mark` as its last octet.
fn message(id: u16, mark: u8) -> Vec<u8> {
    let mut message = vec![0; 12];
    message::set_id(&mut message, id);
    // Its own answer.
    message[2] = 0x80;
    message[11] = mark;
    message
}

async fn read(far: &mut DuplexStream) -> Vec<u8> {
    let mut message = vec![0; usize::from(far.read_u16().await.unwrap())];
    far.read_exact(&mut message).await.unwrap();
    message
}

async fn write(far: &mut DuplexStream, message: &[u8]) {
    let length = u16::try_from(message.len()).unwrap();
    far.write_u16(length).await.unwrap();
    far.write_all(message).await.unwrap();
}

fn mark(reply: &Result<Vec<u8>, Broken>) -> u8 {
    reply.as_ref().unwrap()[11]
}

#[test]
fn answers_find_their_queries_in_any_order() {
    run(async {
        let (connection, mut far) = start();
        let server = async {
            let mut seen = Vec::new();
            for _ in 0..100 {
                seen.push(read(&mut far).await);
            }
            for message in seen.iter().rev() {
                write(&mut far, message).await;
            }
        };
        let queries: Vec<Vec<u8>> = (0..100).map(|n| message(7, n)).collect();
        let replies = join_all(queries.iter().map(|query| connection.exchange(query, &[])));
        let (replies, ()) = tokio::join!(replies, server);
        for (query, reply) in queries.iter().zip(replies) {
            assert_eq!(reply.as_ref(), Ok(query), "id and mark come back");
        }
        assert_eq!(connection.load(), 0);
    });
}

#[test]
fn the_answer_to_a_cancelled_query_meets_nobody() {
    run(async {
        let (connection, mut far) = start();
        let slow = message(1, 1);
        let cancelled = timeout(Duration::from_secs(1), connection.exchange(&slow, &[]));
        assert!(cancelled.await.is_err());
        assert_eq!(connection.load(), 1, "the peer still owes it");
        let first = read(&mut far).await;
        let query = message(2, 2);
        let (reply, ()) = tokio::join!(connection.exchange(&query, &[]), async {
            let second = read(&mut far).await;
            assert_ne!(first[..2], second[..2]);
            write(&mut far, &first).await;
            write(&mut far, &second).await;
        });
        assert_eq!(mark(&reply), 2);
        assert_eq!(connection.load(), 0);
    });
}

#[test]
fn a_broken_connection_tells_everyone_and_whether_it_ever_worked() {
    run(async {
        for answers in [false, true] {
            let (connection, mut far) = start();
            let server = async move {
                let first = read(&mut far).await;
                if answers {
                    write(&mut far, &first).await;
                    read(&mut far).await;
                }
            };
            let client = async {
                let query = message(1, 1);
                if answers {
                    connection.exchange(&query, &[]).await.unwrap();
                }
                connection.exchange(&query, &[]).await
            };
            let (reply, ()) = tokio::join!(client, server);
            let broken = Broken { reason: Reason::Closed, reused: answers };
            assert_eq!(reply, Err(broken.clone()));
            assert!(!connection.is_open());
            assert_eq!(connection.exchange(&message(2, 2), &[]).await, Err(broken));
        }
    });
}

#[test]
fn idle_connections_close_and_busy_ones_do_not() {
    run(async {
        let (connection, mut far) = start();
        sleep(Duration::from_secs(9)).await;
        let query = message(1, 1);
        let (reply, ()) = tokio::join!(connection.exchange(&query, &[]), async {
            let message = read(&mut far).await;
            sleep(Duration::from_secs(25)).await;
            write(&mut far, &message).await;
        });
        assert_eq!(mark(&reply), 1, "it waited longer than `expire`");
        sleep(Duration::from_millis(9_900)).await;
        assert!(connection.is_open());
        sleep(Duration::from_millis(200)).await;
        assert!(!connection.is_open());
        assert_eq!(far.read(&mut [0; 1]).await.unwrap(), 0, "the peer is told");
    });
}

#[test]
fn a_retired_connection_finishes_what_it_has() {
    run(async {
        let (connection, mut far) = start();
        let query = message(1, 1);
        let (reply, ()) = tokio::join!(connection.exchange(&query, &[]), async {
            let message = read(&mut far).await;
            connection.retire();
            assert!(!connection.is_open());
            sleep(Duration::from_secs(1)).await;
            write(&mut far, &message).await;
            assert_eq!(far.read(&mut [0; 1]).await.unwrap(), 0);
        });
        assert_eq!(mark(&reply), 1);
    });
}

#[test]
fn a_retired_connection_does_not_wait_for_what_was_cancelled() {
    run(async {
        let (connection, mut far) = start();
        let query = message(1, 1);
        let mut exchange = Box::pin(connection.exchange(&query, &[]));
        assert!(timeout(Duration::from_secs(1), &mut exchange).await.is_err());
        read(&mut far).await;
        connection.retire();
        drop(exchange);
        let closed = timeout(Duration::from_secs(1), async { far.read(&mut [0; 1]).await.unwrap() });
        assert_eq!(closed.await, Ok(0));
    });
}

#[test]
fn silence_is_measured_from_the_first_unanswered_query() {
    run(async {
        let (connection, mut far) = start();
        let silence = || connection.silence(Instant::now()).as_millis();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(silence(), 0, "nothing is owed");
        let (one, two) = (message(1, 1), message(2, 2));
        let late = async {
            sleep(Duration::from_millis(100)).await;
            connection.exchange(&two, &[]).await
        };
        let (..) = tokio::join!(connection.exchange(&one, &[]), late, async {
            let first = read(&mut far).await;
            let second = read(&mut far).await;
            assert_eq!(silence(), 100);
            let asked = Instant::now();
            write(&mut far, &first).await;
            sleep(Duration::from_millis(50)).await;
            assert_eq!(silence(), 50, "heard, but one is still owed");
            assert!(connection.was_heard_since(asked));
            write(&mut far, &second).await;
        });
        assert_eq!(silence(), 0);
    });
}

#[test]
fn a_full_connection_says_so() {
    run(async {
        let (connection, _far) = start();
        let refused = Cell::new(0);
        let query = message(1, 1);
        let exchanges = join_all((0..MAX_IN_FLIGHT + 5).map(|_| async {
            let broken = connection.exchange(&query, &[]).await.unwrap_err();
            assert!(!broken.reused);
            refused.set(refused.get() + u32::from(broken.reason == Reason::Busy));
        }));
        assert!(timeout(Duration::from_secs(1), exchanges).await.is_err());
        assert_eq!(refused.get(), 5);
        assert!(connection.is_full());
    });
}

#[test]
fn frames_nobody_asked_for_end_it() {
    run(async {
        let (connection, mut far) = start();
        let query = message(1, 1);
        let (reply, ()) = tokio::join!(connection.exchange(&query, &[]), async {
            let asked = message::id(&read(&mut far).await);
            for _ in 0..=MAX_STRAYS {
                write(&mut far, &message(asked.wrapping_add(1), 0)).await;
            }
        });
        assert_eq!(reply.unwrap_err().reason, Reason::Garbage);
    });
}

/// A query for `name` (one label), type A; with `flags` 0x80 it is a response to it.
fn question(id: u16, flags: u8, name: &[u8]) -> Vec<u8> {
    let mut message = vec![0, 0, flags, 0, 0, 1, 0, 0, 0, 0, 0, 0, u8::try_from(name.len()).unwrap()];
    message.extend(name);
    message.extend([0, 0, 1, 0, 1]);
    message::set_id(&mut message, id);
    message
}

#[test]
fn an_answer_to_another_question_hurts_nobody() {
    run(async {
        let (connection, mut far) = start();
        let (one, two) = (question(1, 0, b"one"), question(2, 0, b"two"));
        let replies = async {
            tokio::join!(connection.exchange(&one, &one[12..]), connection.exchange(&two, &two[12..]))
        };
        let ((first, second), ()) = tokio::join!(replies, async {
            let ids = [message::id(&read(&mut far).await), message::id(&read(&mut far).await)];
            // The answers change places, and a query comes back as it went.
            write(&mut far, &question(ids[0], 0x80, b"two")).await;
            write(&mut far, &question(ids[1], 0x80, b"one")).await;
            write(&mut far, &question(ids[1], 0, b"two")).await;
            write(&mut far, &question(ids[0], 0x80, b"ONE")).await;
            write(&mut far, &question(ids[1], 0x80, b"two")).await;
        });
        assert_eq!(first, Ok(question(1, 0x80, b"ONE")));
        assert_eq!(second, Ok(question(2, 0x80, b"two")));
        assert!(connection.is_open());
    });
}

#[test]
fn queries_wear_a_connection_out() {
    run(async {
        let (connection, mut far) = start();
        let query = message(1, 1);
        for number in 1..=4 {
            let (..) = tokio::join!(connection.exchange(&query, &[]), async {
                let message = read(&mut far).await;
                write(&mut far, &message).await;
            });
            assert_eq!(connection.is_aged(Instant::now()), number == 4);
        }
    });
}

/// Counts acknowledgements.
struct Watched(DuplexStream, Rc<Cell<u32>>);

impl Stream for Watched {
    fn acknowledge(&self) {
        self.1.set(self.1.get() + 1);
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[test]
fn an_answer_is_acknowledged_while_others_are_owed_unless_a_query_does_it() {
    run(async {
        let acknowledged = Rc::new(Cell::new(0));
        let (near, mut far) = duplex(1 << 20);
        let watched = Watched(near, Rc::clone(&acknowledged));
        let connection = Connection::start(watched, &remote(), 0, EXPIRE);
        let asked: Vec<_> = (1..=3).map(|mark| connection.send(&message(0, mark), &[]).unwrap()).collect();
        let first = read(&mut far).await;
        write(&mut far, &first).await;
        sleep(Duration::from_millis(1)).await;
        assert_eq!(acknowledged.get(), 1, "nothing else told the peer");
        let second = read(&mut far).await;
        write(&mut far, &second).await;
        tokio::task::yield_now().await;
        let fourth = connection.send(&message(0, 4), &[]).unwrap();
        sleep(Duration::from_millis(1)).await;
        assert_eq!(acknowledged.get(), 1, "the fourth query did");
        drop((asked, fourth));
    });
}
