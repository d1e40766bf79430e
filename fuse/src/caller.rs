//! Who asks: the kernel tells user, group and process; the supplementary groups
//! are read from /proc, as FUSE does not send them.

use antler_core::attributes::Credentials;
use fuser::Request;

/// The caller with its supplementary groups (none are read for root, who needs none).
pub(crate) fn with_groups(request: &Request) -> Credentials {
    let (uid, gid) = (request.uid(), request.gid());
    let groups = if uid == 0 {
        Vec::new()
    } else {
        groups(request.pid())
    };
    Credentials { uid, gid, groups }
}

/// The caller without groups: for requests on what is open already.
pub(crate) fn plain(request: &Request) -> Credentials {
    Credentials {
        uid: request.uid(),
        gid: request.gid(),
        groups: Vec::new(),
    }
}

/// The groups of a process; none when it is gone or hidden, which grants less.
fn groups(pid: u32) -> Vec<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    parse(&status)
}

fn parse(status: &str) -> Vec<u32> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Groups:"))
        .unwrap_or_default();
    line.split_whitespace()
        .filter_map(|group| group.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn groups_are_read_from_the_status_file() {
        assert_eq!(
            parse("Name:\tsh\nGroups:\t4 24 1000 \nNStgid:\t1\n"),
            vec![4, 24, 1000]
        );
        assert!(parse("Groups:\t \n").is_empty());
        assert!(parse("").is_empty());
    }
}
