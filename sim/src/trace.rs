//! One line per event, for people: `--trace`.

use crate::network::Nanos;
use crate::process::{Act, Stimulus};
use antler_core::wire::Message;

/// Characters of a line at most.
const WIDTH: usize = 800;
/// Bytes of what is made shorter that are looked at.
const SEEN: usize = 8 * WIDTH;
/// Bytes of a content that are shown.
const SHOWN_BYTES: usize = 12;

/// Where lines go, if anywhere.
#[derive(Clone, Copy, Debug, Default)]
pub enum Trace {
    /// Nowhere.
    #[default]
    Off,
    /// To standard output.
    On,
}

impl Trace {
    /// Writes a line.
    pub(crate) fn line(self, now: Nanos, who: &str, what: impl FnOnce() -> String) {
        if matches!(self, Self::On) {
            let mut text = shorten(&what());
            if let Some((at, _)) = text.char_indices().nth(WIDTH) {
                text.truncate(at);
                text.push_str("...");
            }
            println!("{:>13.6} {who:<14} {text}", now as f64 / 1e9);
        }
    }

    /// Writes what happens to a process.
    pub(crate) fn stimulus(self, now: Nanos, who: &str, stimulus: &Stimulus) {
        match stimulus {
            Stimulus::Timeout | Stimulus::Due(_) => {}
            Stimulus::Message(link, message) if is_idle_talk(message) => {
                let _ = link;
            }
            other => self.line(now, who, || format!("<- {other:?}")),
        }
    }

    /// Writes what a process does.
    pub(crate) fn act(self, now: Nanos, who: &str, act: &Act) {
        match act {
            Act::Later(..) => {}
            Act::Log(level, text) => self.line(now, who, || format!("{level:?}: {text}")),
            Act::Send(_, message) if is_idle_talk(message) => {}
            other => self.line(now, who, || format!("-> {other:?}")),
        }
    }
}

/// A line with what carries no meaning to a reader cut out of it: the bytes of longer
/// contents, of which only the first few and the number are told, and capabilities' codes.
fn shorten(line: &str) -> String {
    let mut text = String::with_capacity(line.len().min(WIDTH));
    let mut rest = line;
    while let Some(at) = rest.find("b\"").filter(|_| text.len() < SEEN) {
        let (before, from) = rest.split_at(at + 2);
        text.push_str(before);
        let (shown, count, length) = content(from);
        text.push_str(&from[..shown]);
        if shown < length {
            text.push_str(&format!("..{count} bytes"));
        }
        rest = &from[length..];
    }
    text.extend(rest.chars().take(SEEN.saturating_sub(text.len())));
    while let Some(at) = text.find(", code: [") {
        let end = text[at..].find(']').map_or(text.len(), |end| at + end + 1);
        text.replace_range(at..end, "");
    }
    text
}

/// Of escaped bytes up to their closing quote: how much of the text is shown, how many bytes
/// they are, and how long the text is.
fn content(text: &str) -> (usize, usize, usize) {
    let (mut shown, mut count, mut at) = (0, 0, 0);
    while at < text.len() && !text[at..].starts_with('"') {
        at += match text.as_bytes()[at] {
            b'\\' if text[at + 1..].starts_with('x') => 4,
            b'\\' => 2,
            _ => 1,
        };
        count += 1;
        if count <= SHOWN_BYTES {
            shown = at;
        }
    }
    (shown, count, at)
}

/// Heartbeats and Raft: too many to read.
fn is_idle_talk(message: &Message) -> bool {
    use antler_core::wire::chunk_master::{ChunkToMaster, MasterToChunk};
    use antler_core::wire::client_master::{ClientToMaster, MasterToClient};
    use antler_core::wire::master_peer::PeerMessage;
    matches!(
        message,
        Message::Peer(PeerMessage::Raft { .. })
            | Message::ClientToMaster(ClientToMaster::Alive { .. })
            | Message::MasterToClient(MasterToClient::AliveToo { .. })
            | Message::ChunkToMaster(ChunkToMaster::Alive { .. })
            | Message::MasterToChunk(MasterToChunk::Heard { .. })
    )
}

#[cfg(test)]
mod tests {
    use super::shorten;

    #[test]
    fn long_contents_are_told_by_their_first_bytes_and_their_number() {
        let line =
            r#"Write { name: b"short", data: b"\x00\"\n0123456789\\abc", code: [1, 2], end: 3 }"#;
        let short = r#"Write { name: b"short", data: b"\x00\"\n012345678..17 bytes", end: 3 }"#;
        assert_eq!(shorten(line), short);
    }
}
