//! Extended attributes that no inode stores: the way of the operator's tools
//! through a mount. They are not listed, so that no backup copies them.
//!
//! - `antler.cluster` (read): JSON that tells how to reach the cluster, and the
//!   inode's number in it.
//! - `antler.copies` (read, write): how many copies chunks get.

use antler_core::ids::InodeId;
use antler_core::limits::COPIES_MAX;

/// What all of them begin with.
pub const PREFIX: &[u8] = b"antler.";
/// How to reach the cluster.
pub const CLUSTER: &[u8] = b"antler.cluster";
/// How many copies chunks get.
pub const COPIES: &[u8] = b"antler.copies";

/// The value of `antler.cluster`: the mount's own members, and the inode.
pub(crate) fn cluster(members: &str, inode: InodeId) -> String {
    format!("{{{members},\"inode\":{}}}", inode.0)
}

/// A number of copies, if that is what a value says.
pub(crate) fn copies(value: &[u8]) -> Option<u8> {
    let number = std::str::from_utf8(value).ok()?.trim().parse().ok()?;
    (1..=COPIES_MAX).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_small_numbers() {
        assert_eq!(copies(b"3"), Some(3));
        assert_eq!(copies(b"9\n"), Some(9));
        for wrong in [&b"0"[..], b"10", b"", b"two", b"\xff"] {
            assert_eq!(copies(wrong), None);
        }
    }
}
