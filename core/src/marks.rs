//! Coverage marks: named rare events that a suite of simulations must reach,
//! so that a fault nobody meets any more is noticed.
//!
//! Owns the names and a set of them. Each machine and each store keeps a
//! [`Marks`] of its own and tells it by an accessor (`Machine::marks`); there is
//! no global state, and nothing in core ever reads a mark.

use std::fmt;

macro_rules! marks {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal;)*) => {
        /// A rare event worth reaching.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Mark { $($(#[doc = $doc])+ $name,)* }

        impl Mark {
            /// Every mark, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name in scenarios and reports.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

marks! {
    // The log and the images.
    /// Recovery found the log's end behind a torn write.
    TornTail = "torn-tail";
    /// A log segment was full and the next one was begun.
    SegmentRolled = "segment-rolled";
    /// A disk was full when a member's log needed its next segment.
    LogFull = "log-full";
    /// A conflicting tail of the log was cut off.
    LogCut = "log-cut";
    /// An image was written and the log shortened behind it.
    ImageWritten = "image-written";
    /// Recovery began from an image.
    ImageLoaded = "image-loaded";
    /// A member that fell behind installed an image from another.
    ImageInstalled = "image-installed";
    /// Recovery met a newest image that it could not use and took an older one.
    ImageSkipped = "image-skipped";
    // The group.
    /// A member became the leader.
    LeaderElected = "leader-elected";
    /// A leader lost its leadership with proposals under way.
    ProposalDropped = "proposal-dropped";
    /// A read waited for a read barrier round.
    BarrierWaited = "barrier-waited";
    /// Several records shared one log entry.
    RecordsGrouped = "records-grouped";
    // Versions.
    /// The cluster's feature level was raised.
    LevelRaised = "level-raised";
    /// A raise of the level, or a request of a level above, was refused.
    LevelRefused = "level-refused";
    /// A member met a level that it does not know, and ended.
    LevelUnknown = "level-unknown";
    /// A chunkserver of a version below the cluster's level was turned away.
    OldServerRefused = "old-server-refused";
    /// A link was made to or from an end of an older version.
    SpokePrevious = "spoke-previous-version";
    // Sessions and exactly once.
    /// A request was resent and got its first reply again.
    ReplyRepeated = "reply-repeated";
    /// A client went on with its session at another master.
    SessionResumed = "session-resumed";
    /// A session ended because nobody heard it.
    SessionExpired = "session-expired";
    /// A file was unlinked while open and lived on.
    OrphanKept = "orphan-kept";
    /// A change was pushed to a client that had it cached.
    StalePushed = "stale-pushed";
    /// A cache went unused because its lease had lapsed.
    CacheLapsed = "cache-lapsed";
    // Leases.
    /// A lease was recalled for another writer.
    LeaseRecalled = "lease-recalled";
    /// A session got its own lease anew, with another write set or epoch.
    LeaseRegranted = "lease-regranted";
    /// A lease broke with its session and its copies were reconciled.
    LeaseReconciled = "lease-reconciled";
    /// A lease was released unsynced and the leader had the copies synced.
    LeaseClosed = "lease-closed";
    /// The leader fenced a lease that its holder had not given back.
    LeaseFenced = "lease-fenced";
    /// A recovered lease had lost bytes that were acknowledged and not synced.
    LeaseLossy = "lease-lossy";
    /// A copy that a lease had not written to was asked, as nothing newer was committed.
    UnwrittenCopyTaken = "unwritten-copy-taken";
    /// A lease was taken into use again before its release was sent.
    LeaseReclaimed = "lease-reclaimed";
    /// A writer of an older epoch was refused.
    FenceRefused = "fence-refused";
    /// A capability of another life was refused.
    CapabilityRefused = "capability-refused";
    // Chunkservers and disks.
    /// Units embedded in the journal were written in place after a crash.
    UnitsReplayed = "units-replayed";
    /// A disk's journal was checkpointed.
    Checkpointed = "checkpointed";
    /// Several parts shared one commit of a disk.
    CommitShared = "commit-shared";
    /// A chunk at rest came to lie in the parts of an erasure code.
    ChunkConverted = "chunk-converted";
    /// A chunk in parts came to lie in whole copies again.
    ChunkRestored = "chunk-restored";
    /// A conversion came to nothing, as the chunk changed or a server failed.
    ConversionFailed = "conversion-failed";
    /// A chunk in parts was brought back to copies for a client of an older version.
    PartlessServed = "partless-served";
    /// A lost part was made of others.
    PartRepaired = "part-repaired";
    /// A part was made while a source failed, of others.
    BuildReplanned = "build-replanned";
    /// A reader made lost bytes of other parts.
    ReadDecoded = "read-decoded";
    /// A part was made from another server's.
    PartReceived = "part-received";
    /// A unit with a wrong checksum was met.
    CorruptUnit = "corrupt-unit";
    /// A part of which a read had failed was read from end to end, and counts again.
    ReadableAgain = "readable-again";
    /// A sync failed, and nothing more was accepted on that disk.
    SyncFailed = "sync-failed";
    /// A disk was full.
    DiskFull = "disk-full";
    /// A disk was full when the chunk store's journal needed its next segment.
    JournalFull = "journal-full";
    /// A disk was found failed.
    DiskFailed = "disk-failed";
    /// A read was refused because the server's own lease had lapsed.
    ServeLeaseLapsed = "serve-lease-lapsed";
    /// A writer was fenced off a part that was not there.
    AbsentFenced = "absent-fenced";
    /// A part that a failed disk had was asked for.
    LostPartAsked = "lost-part-asked";
    /// A request was put off because too much was under way.
    RequestPutOff = "request-put-off";
    /// A write behind a cut was acknowledged only when the cut was durable.
    CutSynced = "cut-synced";
    /// A copy in the making rested because clients used the server.
    ReplicationRested = "replication-rested";
    /// Clients felt repair more than they are to, and it was given less of the server.
    RepairSlowed = "repair-slowed";
    /// A scrub found a part that was bad.
    ScrubFound = "scrub-found";
    /// A scrub read every part of a disk.
    ScrubRoundEnded = "scrub-round-ended";
    /// A part moved to another disk of its server.
    PartMoved = "part-moved";
    /// A part moved from a disk that had more than its share.
    DisksEvened = "disks-evened";
    /// A read for another server's copy waited, as clients used the source.
    SourcePaced = "source-paced";
    /// A disk was suspected: its reads were slow for long, or failed.
    DiskSuspected = "disk-suspected";
    /// The leader had what is on a single disk made elsewhere.
    DiskEvacuated = "disk-evacuated";
    /// A part was changed while it was copied to another disk.
    MoveSpoiled = "move-spoiled";
    /// The old copy of a part that moved could not be deleted, or was lost amid it.
    PartSealed = "part-sealed";
    /// A disk came while its server ran.
    DiskAdded = "disk-added";
    /// A disk was let go while its server ran.
    DiskRemoved = "disk-removed";
    /// A part was found on two disks of a server.
    PartFoundTwice = "part-found-twice";
    /// A copy in the making went on from another source.
    SourceReplaced = "source-replaced";
    // Repair.
    /// Caches dropped what they knew of a copy that a lease left out, and that is served on.
    LeftOutPushed = "left-out-pushed";
    /// A lease was not recalled yet: its holder was still to be told of it.
    RecallPutOff = "recall-put-off";
    /// A lease was recalled so that its chunk could be repaired.
    RepairRecalled = "repair-recalled";
    /// A lease waited for the copy that its chunk lacked.
    RepairedFirst = "repaired-first";
    /// A lease was ended as all its copies failed its writer, and others had room.
    CrowdedFenced = "crowded-fenced";
    /// Something was to move to an emptier server.
    BalanceMoved = "balance-moved";
    /// A copy beyond the goal was deleted.
    SurplusDeleted = "surplus-deleted";
    /// Nothing but copies on disks that take no writes any more was there to read.
    SuspectRead = "suspect-read";
    /// A missing copy was made anew.
    CopyRepaired = "copy-repaired";
    /// A stale copy was not counted.
    StaleCopyRefused = "stale-copy-refused";
    /// A copy of a lease's write set whose server had another boot id was doubted.
    CopyDoubted = "copy-doubted";
    /// A request that waited was dropped, as the connection that it came over broke.
    HeldDropped = "held-dropped";
    /// A chunk that nobody refers to was deleted after its grace.
    ChunkDeleted = "chunk-deleted";
    /// An unknown chunk was quarantined.
    ChunkQuarantined = "chunk-quarantined";
    /// A server came back within its grace and nothing moved.
    GraceUsed = "grace-used";
    /// A chunk was left as it is while a server in maintenance was away.
    MaintenanceAwaited = "maintenance-awaited";
    /// All copies of a chunk lie elsewhere: those on drained servers go.
    CopyDrained = "copy-drained";
    // The client.
    /// A read was also sent to another copy because the first was slow.
    ReadHedged = "read-hedged";
    /// A read went to another copy after an error or a wrong checksum.
    ReadRetried = "read-retried";
    /// A read of what was kept waited, as its lease might have ended.
    KeptDoubted = "kept-doubted";
    /// A write that was not acknowledged was sent again.
    WriteResent = "write-resent";
    /// Acknowledged bytes were sent again because a server's life had ended before their sync.
    UnsyncedResent = "unsynced-resent";
    /// The client synced by itself because it kept too much unsynced.
    UnsyncedFull = "unsynced-full";
    /// A sync was sent behind writes under way, without waiting for their replies.
    SyncFollowed = "sync-followed";
    /// A write waited because too much was unwritten or unsynced.
    WriteBlocked = "write-blocked";
    /// A piece was sent again to a copy that had been too busy for it.
    WritePutOff = "write-put-off";
    /// A sync was sent again to a copy that had been too busy for it.
    SyncPutOff = "sync-put-off";
    /// A commit came too late: the chunk was cut, or its lease fenced.
    CommitStale = "commit-stale";
    /// A read waited for a commit whose lease had been given back already.
    CommitAwaited = "commit-awaited";
    /// A copy that failed was named to the leader.
    CopyBlamed = "copy-blamed";
    /// The answer to a change was older than what had been pushed.
    AnswerOvertaken = "answer-overtaken";
    /// A name in the kernel lapsed before the kernel dropped it.
    NameLapsed = "name-lapsed";
    /// A program was told that writes were lost.
    LossTold = "loss-told";
    /// Writes were lost when nobody had the file open, for the next to be told.
    LossKept = "loss-kept";
}

/// A set of marks.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks(u128);

const _: () = assert!(Mark::ALL.len() <= 128, "a mark is one bit of a set");

impl Marks {
    /// Notes that a mark was reached.
    pub fn reach(&mut self, mark: Mark) {
        self.0 |= 1 << mark as u32;
    }

    /// Whether it was.
    #[must_use]
    pub fn has(self, mark: Mark) -> bool {
        self.0 & (1 << mark as u32) != 0
    }

    /// Takes another set's marks in.
    pub fn merge(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// The marks reached, in order.
    pub fn iter(self) -> impl Iterator<Item = Mark> {
        Mark::ALL
            .iter()
            .copied()
            .filter(move |&mark| self.has(mark))
    }
}

impl fmt::Debug for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Mark::name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_reached_and_merges() {
        let mut left = Marks::default();
        left.reach(Mark::TornTail);
        let mut right = Marks::default();
        right.reach(Mark::UnsyncedFull);
        left.merge(right);
        let all: Vec<Mark> = left.iter().collect();
        assert_eq!(all, [Mark::TornTail, Mark::UnsyncedFull]);
        assert!(!left.has(Mark::ReadHedged));
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = Mark::ALL.iter().map(|mark| mark.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Mark::ALL.len());
    }
}
