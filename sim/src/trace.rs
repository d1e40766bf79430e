//! One line per event, for people: `--trace`.

use crate::network::Nanos;
use crate::process::{Act, Stimulus};
use antler_core::wire::Message;

/// Characters of a line at most.
const WIDTH: usize = 400;

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
            let mut text = what();
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
