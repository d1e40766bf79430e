//! The yardstick of a rebuild: a plain copy of as many files and bytes.
//!
//! Files of the same sizes are made beside, unmeasured, then copied one after
//! the other with an fdatasync each. A rebuild that keeps up with this keeps
//! the disk busy. One stream, as `cp` would; the sources are still in memory,
//! as the copies that a rebuild reads are.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::bulk::STRIDE;
use crate::failure::{Doing, Outcome};
use crate::pattern::{Pattern, UNIT};

/// The size of a large file: one chunk.
const LARGE: u64 = 64 << 20;

/// How long a copy of `large` bytes in files of 64 MiB and of `small` files of
/// 4 KiB takes under `directory`, which is left empty.
pub(crate) fn measure(directory: &Path, large: u64, small: u64) -> Outcome<Duration> {
    let sizes = sizes(large, small);
    let (from, to) = (directory.join("from"), directory.join("to"));
    for side in [&from, &to] {
        fs::create_dir_all(side).doing(|| format!("creating {}", side.display()))?;
    }
    for (file, &size) in sizes.iter().enumerate() {
        make(&from.join(file.to_string()), file as u64, size)?;
    }
    let begin = Instant::now();
    for file in 0..sizes.len() {
        let name = file.to_string();
        copy(&from.join(&name), &to.join(&name))?;
    }
    let elapsed = begin.elapsed();
    fs::remove_dir_all(directory).doing(|| format!("removing {}", directory.display()))?;
    Ok(elapsed)
}

fn sizes(large: u64, small: u64) -> Vec<u64> {
    let whole = std::iter::repeat_n(LARGE, (large / LARGE) as usize);
    let rest = Some(large % LARGE).filter(|&rest| rest > 0);
    let small = std::iter::repeat_n(UNIT as u64, small as usize);
    whole.chain(rest).chain(small).collect()
}

fn make(path: &Path, number: u64, size: u64) -> Outcome<()> {
    let doing = || format!("writing {}", path.display());
    let mut file = File::create(path).doing(doing)?;
    let mut pattern = Pattern::new(STRIDE / UNIT);
    for offset in (0..size).step_by(STRIDE) {
        let length = (size - offset).min(STRIDE as u64) as usize;
        let bytes = pattern.stamped(number, offset, 1);
        file.write_all(&bytes[..length]).doing(doing)?;
    }
    file.sync_data().doing(doing)
}

fn copy(from: &Path, to: &Path) -> Outcome<()> {
    let doing = || format!("copying to {}", to.display());
    let mut source = File::open(from).doing(doing)?;
    let mut target = File::create(to).doing(doing)?;
    let mut buffer = vec![0; STRIDE];
    loop {
        match source.read(&mut buffer).doing(doing)? {
            0 => return target.sync_data().doing(doing),
            length => target.write_all(&buffer[..length]).doing(doing)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_add_up() {
        let sizes = sizes(2 * LARGE + 5, 3);
        assert_eq!(sizes, [LARGE, LARGE, 5, 4096, 4096, 4096]);
    }
}
