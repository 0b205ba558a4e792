//! Two threads on two processors that send at the same instant.

use std::io;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Time between the first meeting of the two and the last: by then both processors are awake and hot.
const WARM_UP: Duration = Duration::from_micros(50);
/// Turns of waiting for the other one before the processor is offered to others.
const PATIENCE: u32 = 100_000;

/// The two threads; dropping it ends them.
pub(super) struct Senders {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    together: bool,
}

struct Shared {
    /// The senders and whoever commands them.
    start: Barrier,
    sent: Barrier,
    /// Senders that reached either meeting, in all rounds.
    met: [AtomicUsize; 2],
    shots: [Mutex<Shot>; 2],
    quit: AtomicBool,
}

#[derive(Default)]
struct Shot {
    load: Option<(Arc<UdpSocket>, Vec<u8>)>,
    sent: Option<io::Result<Instant>>,
}

impl Senders {
    /// Starts them on two of the processors that this thread may use.
    pub(super) fn start() -> io::Result<Senders> {
        let shared = Arc::new(Shared {
            start: Barrier::new(3),
            sent: Barrier::new(3),
            met: Default::default(),
            shots: Default::default(),
            quit: AtomicBool::new(false),
        });
        let processors = processors()?;
        let mut senders = Senders { shared, threads: Vec::new(), together: processors.len() > 1 };
        for position in 0..2 {
            let shared = Arc::clone(&senders.shared);
            let processor = processors.get(position).copied();
            let run = move || shared.run(position, processor);
            senders.threads.push(thread::Builder::new().name("sender".into()).spawn(run)?);
        }
        Ok(senders)
    }

    /// Whether there are two processors, so that the two can send at once.
    pub(super) fn race(&self) -> bool {
        self.together
    }

    /// Sends each packet from its socket, both at once; returns when each was sent.
    pub(super) fn send(&self, shots: [(Arc<UdpSocket>, Vec<u8>); 2]) -> io::Result<[Instant; 2]> {
        for (place, load) in self.shared.shots.iter().zip(shots) {
            place.lock().unwrap_or_else(PoisonError::into_inner).load = Some(load);
        }
        self.shared.start.wait();
        self.shared.sent.wait();
        let sent = |position: usize| {
            let mut shot = self.shared.shots[position].lock().unwrap_or_else(PoisonError::into_inner);
            shot.sent.take().unwrap_or_else(|| Err(io::ErrorKind::BrokenPipe.into()))
        };
        Ok([sent(0)?, sent(1)?])
    }
}

impl Drop for Senders {
    fn drop(&mut self) {
        self.shared.quit.store(true, Ordering::Release);
        if self.threads.len() == 2 {
            self.shared.start.wait();
            self.threads.drain(..).for_each(|thread| drop(thread.join()));
        }
    }
}

impl Shared {
    fn run(&self, position: usize, processor: Option<usize>) {
        if let Some(processor) = processor {
            let mut only = CpuSet::new();
            only.set(processor);
            // Refused: it races as well as the scheduler lets it.
            let _ = sched_setaffinity(None, &only);
        }
        for round in 1.. {
            self.start.wait();
            if self.quit.load(Ordering::Acquire) {
                return;
            }
            let mut shot = self.shots[position].lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((socket, packet)) = shot.load.take() {
                meet(&self.met[0], 2 * round);
                let start = Instant::now();
                // The last reading is the one that counts: a clock read after the second meeting would
                // come between the two packets.
                let mut now = start;
                while now - start < WARM_UP {
                    now = Instant::now();
                }
                meet(&self.met[1], 2 * round);
                shot.sent = Some(super::send(&socket, &packet).map(|()| now));
            }
            drop(shot);
            self.sent.wait();
        }
    }
}

/// Spins until `both` have come: a sleeper would wake too late, and so would one that pauses.
fn meet(met: &AtomicUsize, both: usize) {
    met.fetch_add(1, Ordering::AcqRel);
    let mut turns = 0;
    while met.load(Ordering::Acquire) < both {
        turns += 1;
        if turns % PATIENCE == 0 {
            thread::yield_now();
        }
    }
}

fn processors() -> io::Result<Vec<usize>> {
    let allowed = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|processor| allowed.is_set(*processor)).take(2).collect())
}
