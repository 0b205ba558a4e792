//! Time as a value, so that whatever depends on it can be shown any time.

use std::sync::Arc;

/// Milliseconds on the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(pub u64);

impl Moment {
    /// Milliseconds since `earlier`; 0 if that is later.
    #[inline]
    pub fn since(self, earlier: Moment) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This much later.
    pub fn plus_ms(self, ms: u64) -> Moment {
        Moment(self.0.saturating_add(ms))
    }
}

/// Tells the time.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Moment + Send + Sync>);

impl Clock {
    /// The machine's own: `CLOCK_MONOTONIC`.
    pub fn system() -> Clock {
        Clock(Arc::new(now))
    }

    /// A clock that tests turn.
    pub fn from_fn(read: impl Fn() -> Moment + Send + Sync + 'static) -> Clock {
        Clock(Arc::new(read))
    }

    /// What time it is.
    pub fn now(&self) -> Moment {
        (self.0)()
    }
}

/// `CLOCK_MONOTONIC` to the nanosecond.
#[inline]
pub fn nanoseconds() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// `CLOCK_MONOTONIC` in milliseconds.
#[inline]
pub fn now() -> Moment {
    Moment(nanoseconds() / 1_000_000)
}

/// Seconds since 1970, as DNSSEC signatures count them (RFC 4034 §3.1.5): modulo 2^32.
pub fn unix_seconds() -> u32 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    time.tv_sec as u32
}
