//! Time as an argument: the monotonic instant for expiries, the wall clock for
//! timestamps. Nobody in core reads a clock; drivers pass [`Now`] in.

use minicbor::{Decode, Encode};
use std::fmt;
use std::ops::{Add, Sub};
pub use std::time::Duration;

/// A point on one machine's monotonic clock, in nanoseconds since its boot.
/// Never compared between machines.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// The instant that no clock reaches.
    pub const NEVER: Self = Self(u64::MAX);

    /// How long ago `earlier` was; zero when it lies ahead.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl Sub for Instant {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{:09}s",
            self.0 / 1_000_000_000,
            self.0 % 1_000_000_000
        )
    }
}

/// Wall time as POSIX stores it (`struct timespec`): for timestamps alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Encode, Decode)]
pub struct Timestamp {
    /// Seconds since 1970-01-01, negative before.
    #[n(0)]
    pub seconds: i64,
    /// 0..=999_999_999.
    #[n(1)]
    pub nanos: u32,
}

impl Timestamp {
    /// For how long a moment is past; nothing for one to come.
    #[must_use]
    pub fn since(self, past: Self) -> Duration {
        let nanos = |time: Self| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
        let passed = (nanos(self) - nanos(past)).clamp(0, i128::from(i64::MAX));
        Duration::from_nanos(u64::try_from(passed).expect("clamped"))
    }
}

/// Both clocks at the moment of an input.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// For expiries and timeouts.
    pub mono: Instant,
    /// For the timestamps of files.
    pub wall: Timestamp,
}
