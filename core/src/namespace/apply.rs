//! Applying records: the only way in which the state changes.
//!
//! Owns the routing from a record to its operation and back to what it changed.
//! Total and deterministic: any record gives the same result on every member,
//! whatever it says; what makes no sense is refused or ignored.

use super::inode::Moment;
use super::name::Name;
use super::names::Blueprint;
use super::record::{Choice, ClientRecord, Mutation, Outcome, Record, RecordBody, Reply};
use super::rename::Route;
use super::session::{Remembered, RememberedReply};
use super::state::{Applied, Change, State};
use super::stripes::Place;
use crate::attributes::Credentials;
use crate::errno::Errno;
use crate::hash::{hash_bytes, mix};
use crate::ids::{ChunkId, Epoch, Incarnation, InodeId, LogPosition, SessionId};
use crate::limits::COPIES_MAX;
use crate::version::FeatureLevel;
use std::iter::repeat;

/// How far the counters of ids and the floor of epochs move in a recovered cluster:
/// more than the lost part of a log can have given.
const RECOVERY_LEAP: u64 = 1 << 40;
/// The same for epochs and versions where these count syncs too.
const COUNTED_LEAP: u64 = 1 << 52;

/// What one record brings with it, and what it has changed so far.
pub(crate) struct Step<'a> {
    pub(crate) now: Moment,
    pub(crate) who: &'a Credentials,
    /// Session 0 is nobody's.
    pub(crate) session: SessionId,
    pub(crate) choice: &'a Choice,
    changes: Vec<Change>,
}

impl Step<'_> {
    /// Notes a change, unless it was just noted.
    pub(crate) fn changed(&mut self, change: Change) {
        let recent = self.changes.len().saturating_sub(4);
        if !self.changes[recent..].contains(&change) {
            self.changes.push(change);
        }
    }
}

impl State {
    /// Applies the next record of the log. Several records may share a position.
    ///
    /// # Panics
    /// When the position lies behind one that was applied: the caller's bug.
    pub fn apply(&mut self, position: LogPosition, record: &Record) -> Applied {
        self.pass(position);
        let (who, choice) = (Credentials::default(), Choice::default());
        let mut step = Step {
            now: record.time.into(),
            who: &who,
            session: SessionId(0),
            choice: &choice,
            changes: Vec::new(),
        };
        let mut applied = Applied::default();
        match &record.body {
            RecordBody::Client(client) => {
                step.who = &client.credentials;
                step.session = client.session;
                step.choice = &client.choice;
                applied.session = Some((client.session, client.request));
                applied.outcome = Some(self.serve(&mut step, client));
            }
            RecordBody::BeginSession { name, nonce } => {
                applied.outcome = Some(self.begin_session(name, *nonce));
            }
            body => self.conduct(&mut step, body),
        }
        applied.changes = step.changes;
        applied
    }

    /// Notes that the log reached a position, by a record or by an entry without one.
    ///
    /// # Panics
    /// When the position lies behind one that was applied: the caller's bug.
    pub fn pass(&mut self, position: LogPosition) {
        assert!(position >= self.scalars.applied, "the log goes forward");
        self.scalars.applied = position;
    }

    /// The records that a leader makes by itself.
    fn conduct(&mut self, step: &mut Step<'_>, body: &RecordBody) {
        if self.demand_level(body.since()).is_err() {
            return;
        }
        match body {
            RecordBody::Client(_) | RecordBody::BeginSession { .. } => {}
            RecordBody::EndSession { session } => self.end_session(step, *session, false),
            RecordBody::Settled { chunks } => {
                for &(chunk, epoch) in chunks {
                    self.settle(step, chunk, epoch);
                }
            }
            RecordBody::Fence { chunks } => {
                for &(chunk, epoch) in chunks {
                    self.fence(step, chunk, epoch);
                }
            }
            RecordBody::Reconciled {
                chunk,
                epoch,
                servers,
                lossy,
                boots,
            } => {
                let boots = boots.iter().copied().map(Some).chain(repeat(None));
                let copies = servers.iter().copied().zip(boots).collect();
                self.reconcile(step, (*chunk, *epoch), copies, *lossy);
            }
            RecordBody::Found {
                capability_secret,
                copies,
                level,
            } => {
                self.found_cluster(step, capability_secret, *copies, *level);
            }
            RecordBody::Member { member, address } => self.set_member(*member, address),
            RecordBody::Recover { incarnation } => {
                self.recover(step, Incarnation(*incarnation));
            }
            RecordBody::Adopt {
                chunk,
                epoch,
                version,
            } => {
                self.adopt(step, *chunk, *epoch, *version);
            }
            RecordBody::CloseOrphans { session, inodes } => {
                self.close_orphans(step, *session, inodes);
            }
            RecordBody::ServerLabels { server, labels } => {
                self.configure_labels(step, *server, labels);
            }
            RecordBody::Archived { inodes } => self.archive(step, inodes),
            &RecordBody::Converted {
                chunk,
                epoch,
                version,
                stripe,
                ref servers,
            } => {
                let place = Place {
                    chunk,
                    epoch,
                    version,
                };
                self.convert(step, place, stripe, servers);
            }
            &RecordBody::Restored {
                chunk,
                epoch,
                version,
                stamp,
                ref servers,
            } => {
                let place = Place {
                    chunk,
                    epoch,
                    version,
                };
                self.restore(step, place, stamp, servers);
            }
        }
    }

    /// A client's request: run once, and answered alike ever after.
    fn serve(&mut self, step: &mut Step<'_>, record: &ClientRecord) -> Outcome {
        match self.remembered(record.session, record.request) {
            Remembered::Reply(outcome) => return outcome.clone(),
            Remembered::NoSession | Remembered::TooOld => return Err(Errno::ESTALE),
            Remembered::BeyondWindow | Remembered::New => {}
        }
        self.note_oldest(record.session, record);
        if self.remembered(record.session, record.request) == Remembered::BeyondWindow {
            return Err(Errno::EAGAIN);
        }
        let outcome = self.mutate(step, &record.mutation);
        let reply = RememberedReply::new(outcome.clone());
        self.replies.insert((record.session, record.request), reply);
        outcome
    }

    fn mutate(&mut self, step: &mut Step<'_>, mutation: &Mutation) -> Outcome {
        self.demand_level(mutation.since())?;
        match mutation {
            Mutation::Create {
                parent,
                name,
                kind,
                mode,
                device,
                target,
                exclusive,
                write,
            } => {
                let new = Blueprint {
                    kind: *kind,
                    mode: *mode,
                    device: *device,
                    target,
                    exclusive: *exclusive,
                    write: *write,
                };
                self.create(step, *parent, name, &new)
            }
            Mutation::Link {
                inode,
                parent,
                name,
            } => self.link(step, *inode, *parent, name),
            Mutation::Unlink { parent, name } => self.unlink(step, *parent, name),
            Mutation::Rmdir { parent, name } => self.rmdir(step, *parent, name),
            Mutation::Rename {
                parent,
                name,
                new_parent,
                new_name,
                mode,
            } => {
                let route = Route {
                    parent: *parent,
                    name,
                    new_parent: *new_parent,
                    new_name,
                };
                self.rename(step, route, *mode)
            }
            Mutation::SetAttributes { inode, change } => self.set_attributes(step, *inode, change),
            Mutation::SetXattr {
                inode,
                name,
                value,
                mode,
            } => self.set_xattr(step, *inode, name, value, *mode),
            Mutation::RemoveXattr { inode, name } => self.remove_xattr(step, *inode, name),
            Mutation::SetCopies { inode, copies } => self.set_copies(step, *inode, *copies),
            Mutation::CommitWrite {
                inode,
                size,
                extents,
                release,
                unchanged,
            } => {
                if !self.void_ends(step.session, release).is_empty() {
                    return Err(Errno::ESTALE);
                }
                match *unchanged && self.feature_level() >= FeatureLevel::SYNCS {
                    true => self.commit_syncs(step, *inode, extents)?,
                    false => self.commit_write(step, *inode, *size, extents)?,
                }
                self.release(step, release);
                self.entry(*inode)
            }
            Mutation::Lease {
                inode,
                index,
                failed: _,
            } => self.lease(step, *inode, *index),
            Mutation::Release { leases } => {
                let void = self.void_ends(step.session, leases);
                self.release(step, leases);
                Ok(Reply::Released { void })
            }
            Mutation::Fallocate {
                inode,
                mode,
                offset,
                length,
            } => self.fallocate(step, *inode, *mode, *offset, *length),
            Mutation::CloseOrphans { inodes } => {
                self.close_orphans(step, step.session, inodes);
                Ok(Reply::Done)
            }
            Mutation::SetClass { inode, class } => self.set_class(step, *inode, class),
            Mutation::SetPatterns { inode, patterns } => self.set_patterns(step, *inode, patterns),
            Mutation::ChangeClass(change) => self.change_class(step, change),
            Mutation::SetLabel { server, key, value } => {
                self.set_label(step, *server, key, value.as_deref())
            }
            Mutation::RaiseLevel { level } => self.raise_level(step, *level),
        }
    }

    /// The first record of a cluster; in one that was founded it changes nothing.
    fn found_cluster(
        &mut self,
        step: &mut Step<'_>,
        secret: &[u8],
        copies: u8,
        level: FeatureLevel,
    ) {
        if self.is_founded() {
            return;
        }
        self.scalars.capability_secret = secret.to_vec();
        self.scalars.name_seed = mix(hash_bytes(secret));
        self.scalars.incarnation = Incarnation(1);
        self.scalars.level = level.max(FeatureLevel::FIRST);
        self.found_root(step, copies.clamp(1, COPIES_MAX));
        step.changed(Change::Inode(InodeId::ROOT));
    }

    fn set_member(&mut self, member: u64, address: &str) {
        if address.is_empty() {
            self.members.remove(&member);
        } else {
            self.members.insert(member, Name::new(address.as_bytes()));
        }
    }

    /// A later life of the cluster: whatever the lost end of the log has given is not
    /// given again, and what it has made is not mistaken for something deleted.
    fn recover(&mut self, step: &mut Step<'_>, incarnation: Incarnation) {
        if !self.is_founded() || incarnation <= self.scalars.incarnation {
            return;
        }
        let sessions: Vec<SessionId> = self.sessions.iter().map(|(session, _)| *session).collect();
        for session in sessions {
            self.end_session(step, session, true);
        }
        self.forget_syncs(step);
        let epochs = match self.feature_level() < FeatureLevel::COUNTS {
            true => RECOVERY_LEAP,
            false => COUNTED_LEAP,
        };
        let scalars = &mut self.scalars;
        let first_lost = scalars.last_chunk.next();
        scalars.incarnation = incarnation;
        scalars.last_inode = InodeId(scalars.last_inode.0.saturating_add(RECOVERY_LEAP));
        scalars.last_chunk = ChunkId(scalars.last_chunk.0.saturating_add(RECOVERY_LEAP));
        scalars.last_session = SessionId(scalars.last_session.0.saturating_add(RECOVERY_LEAP));
        scalars.epoch_floor = Epoch(scalars.epoch_floor.0.saturating_add(epochs));
        self.lost.add(first_lost, self.scalars.last_chunk.next());
    }
}
