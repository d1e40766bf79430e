//! The clocks and the randomness of the machine that we run on: the only place
//! where either is read. Core gets both as arguments.

use antler_core::time::{Instant, Now, Timestamp};
use rustix::rand::GetRandomFlags;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Both clocks. The monotonic one goes on while the machine sleeps, so that a
/// lease has lapsed when a suspended host wakes up.
#[must_use]
pub fn now() -> Now {
    Now {
        mono: mono(),
        wall: wall(),
    }
}

/// The monotonic clock, in nanoseconds since boot.
#[must_use]
pub fn mono() -> Instant {
    let time = clock_gettime(ClockId::Boottime);
    Instant(whole(time.tv_sec) * 1_000_000_000 + whole(time.tv_nsec))
}

/// The wall clock.
#[must_use]
pub fn wall() -> Timestamp {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Realtime);
    Timestamp {
        seconds: tv_sec,
        nanos: u32::try_from(tv_nsec).expect("below a second"),
    }
}

fn whole(part: i64) -> u64 {
    u64::try_from(part).expect("the time since boot is positive")
}

/// Fresh bytes from the operating system, fit for secrets.
///
/// # Panics
/// When the system has no randomness to give, which Linux excludes.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        match rustix::rand::getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("the system gives no randomness: {error}"),
        }
    }
    bytes
}

/// A random number for an id, never 0, which means nobody in many places.
#[must_use]
pub fn random_id() -> u64 {
    loop {
        let id = u64::from_le_bytes(random());
        if id != 0 {
            return id;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_goes_on() {
        let before = mono();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(mono().since(before) >= std::time::Duration::from_millis(2));
        assert!(wall().seconds > 1_700_000_000);
    }

    #[test]
    fn random_numbers_differ() {
        assert_ne!(random::<32>(), random::<32>());
        assert_ne!(random_id(), random_id());
    }
}
