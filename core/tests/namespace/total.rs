//! Any record, sensible or not, is judged without a panic, leaves a state that
//! agrees with itself, and means the same on every member.

use crate::world::{World, alice, bob, image, load, root};
use antler_core::attributes::{
    AttributeChange, FallocateMode, FileKind, RenameMode, TimeChange, XattrMode,
};
use antler_core::chunk::geometry::StripeShape;
use antler_core::chunk::stripe::Stripe;
use antler_core::ids::{
    BootId, ChunkId, ChunkVersion, Epoch, InodeId, RequestId, ServerId, SessionId,
};
use antler_core::limits::{CHUNK_SIZE, FILE_SIZE_MAX};
use antler_core::namespace::record::{
    Choice, ClassChange, ClassPattern, ClientRecord, LeaseEnd, Mutation, RecordBody, WrittenExtent,
};
use antler_core::namespace::{Change, State};
use antler_core::placement::{Policy, StorageClass};
use antler_core::rng::Rng;
use antler_core::time::Timestamp;
use antler_core::version::FeatureLevel;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Draws records whose ids are mostly those of things that exist.
struct Draw(Rng);

impl Draw {
    fn number(&mut self, usual: u64) -> u64 {
        match self.0.below(40) {
            0 => u64::MAX,
            1 => self.0.word(),
            2 => 0,
            _ => self.0.below(usual) + 1,
        }
    }

    fn inode(&mut self) -> InodeId {
        InodeId(self.number(12))
    }

    fn session(&mut self) -> SessionId {
        SessionId(self.number(3))
    }

    fn chunk(&mut self) -> ChunkId {
        ChunkId(self.number(12))
    }

    fn epoch(&mut self) -> Epoch {
        Epoch(self.number(4) << (20 * self.0.below(2)))
    }

    fn name(&mut self) -> Vec<u8> {
        match self.0.below(30) {
            0 => Vec::new(),
            1 => b"..".to_vec(),
            2 => b"a/b".to_vec(),
            3 => vec![b'x'; 256],
            _ => format!("n{}", self.0.below(8)).into_bytes(),
        }
    }

    fn size(&mut self) -> u64 {
        match self.0.below(10) {
            0 => self.number(1),
            1 => FILE_SIZE_MAX - self.0.below(2),
            2 => self.0.below(4) * CHUNK_SIZE,
            _ => self.0.below(4 * CHUNK_SIZE),
        }
    }

    fn index(&mut self) -> u32 {
        match self.0.below(20) {
            0 => u32::MAX,
            1 => (FILE_SIZE_MAX / CHUNK_SIZE) as u32 - 1,
            _ => self.0.below(4) as u32,
        }
    }

    fn list<T>(&mut self, mut draw: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.0.below(4)).map(|_| draw(self)).collect()
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.0.below(from.len() as u64) as usize]
    }

    fn end(&mut self) -> LeaseEnd {
        LeaseEnd {
            chunk: self.chunk(),
            epoch: self.epoch(),
            synced: self.0.one_in(2),
            syncs: self.0.below(4) as u32,
        }
    }

    fn extent(&mut self) -> WrittenExtent {
        WrittenExtent {
            index: self.index(),
            chunk: self.chunk(),
            valid: self.0.below(CHUNK_SIZE + CHUNK_SIZE / 8) as u32,
            fences: self.0.below(2),
            synced: false,
        }
    }

    fn choice(&mut self) -> Choice {
        let copy = |draw: &mut Self| (ServerId(draw.number(3)), BootId(draw.number(2)));
        Choice {
            copies: self.list(copy),
            open_by: self.list(|draw| (draw.inode(), draw.session())),
        }
    }

    fn change(&mut self) -> AttributeChange {
        let time = |draw: &mut Self| match draw.0.below(3) {
            0 => TimeChange::Keep,
            1 => TimeChange::Now,
            _ => TimeChange::Set(Timestamp {
                seconds: draw.0.word().cast_signed(),
                nanos: draw.0.below(1_100_000_000) as u32,
            }),
        };
        let some = |draw: &mut Self, number: u32| draw.0.one_in(3).then_some(number);
        let (id, mode) = (self.pick(&[0, 1000, 1001, 2000]), self.0.word() as u32);
        AttributeChange {
            mode: some(self, mode),
            uid: some(self, id),
            gid: some(self, id),
            size: self.0.one_in(3).then(|| self.size()),
            atime: time(self),
            mtime: time(self),
            by_handle: self.0.one_in(2),
        }
    }

    fn mutation(&mut self) -> Mutation {
        use FallocateMode::{Extend, Keep, Punch, Zero, ZeroKeep};
        use FileKind::{BlockDevice, Directory, Fifo, Regular, Symlink};
        use RenameMode::{Exchange, NoReplace, Replace};
        match self.0.below(20) {
            0..=4 => Mutation::Create {
                parent: self.inode(),
                name: self.name(),
                kind: self.pick(&[Regular, Regular, Directory, Symlink, Fifo, BlockDevice]),
                mode: self.0.word() as u32,
                device: self.0.word(),
                target: self.name(),
                exclusive: self.0.one_in(2),
                write: self.0.one_in(2),
            },
            5 => Mutation::Link {
                inode: self.inode(),
                parent: self.inode(),
                name: self.name(),
            },
            6 => Mutation::Unlink {
                parent: self.inode(),
                name: self.name(),
            },
            7 => Mutation::Rmdir {
                parent: self.inode(),
                name: self.name(),
            },
            8 | 9 => Mutation::Rename {
                parent: self.inode(),
                name: self.name(),
                new_parent: self.inode(),
                new_name: self.name(),
                mode: self.pick(&[Replace, Replace, NoReplace, Exchange]),
            },
            10 => Mutation::SetAttributes {
                inode: self.inode(),
                change: self.change(),
            },
            11 => Mutation::SetXattr {
                inode: self.inode(),
                name: [b"user.".to_vec(), self.name()].concat(),
                value: self.name(),
                mode: self.pick(&[XattrMode::Any, XattrMode::Create, XattrMode::Replace]),
            },
            12 => Mutation::RemoveXattr {
                inode: self.inode(),
                name: [b"user.".to_vec(), self.name()].concat(),
            },
            13 => Mutation::SetCopies {
                inode: self.inode(),
                copies: self.number(9) as u8,
            },
            14 | 15 => Mutation::CommitWrite {
                inode: self.inode(),
                size: self.size(),
                extents: self.list(Self::extent),
                release: self.list(Self::end),
                unchanged: false,
            },
            16 | 17 => Mutation::Lease {
                inode: self.inode(),
                index: self.index(),
                failed: Vec::new(),
            },
            18 => Mutation::Release {
                leases: self.list(Self::end),
            },
            _ => self.rare_mutation(&[Extend, Keep, Punch, Zero, ZeroKeep]),
        }
    }

    fn class_name(&mut self) -> String {
        self.pick(&["gold", "west", "copies-2", "copies-0", "", "w t"])
            .to_owned()
    }

    fn class(&mut self) -> StorageClass {
        let policy = self.pick(&[
            "2 in dc=west",
            "copies(2), 1 in dc=west, differ by dc",
            "1 in not dc=west soft",
            "copies(3)",
            "ec(2+1)",
            "ec(2+1), 2 in dc=west",
        ]);
        let mut keep: Policy = policy.parse().expect("it is well written");
        if self.0.one_in(9) {
            keep.copies = self.number(12) as u8;
        }
        let create = self.0.one_in(3).then(|| Policy::copies(1));
        StorageClass {
            create,
            keep,
            archive: self
                .0
                .one_in(3)
                .then(|| "ec(2+1) after 1s".parse().expect("well written")),
        }
    }

    fn class_mutation(&mut self) -> Mutation {
        let (name, new_name) = (self.class_name(), self.class_name());
        Mutation::ChangeClass(match self.0.below(8) {
            0..=3 => ClassChange::Create {
                name,
                class: self.class(),
            },
            4 | 5 => ClassChange::Modify {
                name,
                class: self.class(),
            },
            6 => ClassChange::Rename { name, new_name },
            _ => ClassChange::Delete { name },
        })
    }

    fn patterns(&mut self) -> Mutation {
        let globs = ["*", "a*", "?", "[", "", "[!b]"];
        let patterns = self.list(|draw| ClassPattern {
            glob: draw.pick(&globs).as_bytes().to_vec(),
            class: draw.class_name(),
        });
        Mutation::SetPatterns {
            inode: self.inode(),
            patterns,
        }
    }

    fn rare_mutation(&mut self, modes: &[FallocateMode]) -> Mutation {
        match self.0.below(8) {
            0 => return self.class_mutation(),
            4 => return self.patterns(),
            1 | 2 => {
                return Mutation::SetClass {
                    inode: self.inode(),
                    class: self.class_name(),
                };
            }
            3 => {
                return Mutation::SetLabel {
                    server: ServerId(self.number(3)),
                    key: "dc".to_owned(),
                    value: self
                        .pick(&[None, Some("west"), Some("w t")])
                        .map(str::to_owned),
                };
            }
            _ => {}
        }
        if self.0.one_in(3) {
            let inodes = self.list(Self::inode);
            return Mutation::CloseOrphans { inodes };
        }
        Mutation::Fallocate {
            inode: self.inode(),
            mode: self.pick(modes),
            offset: self.size(),
            length: self.size(),
        }
    }

    fn record(&mut self, requests: &mut u64) -> RecordBody {
        match self.0.below(60) {
            0 => RecordBody::BeginSession {
                name: "n".to_owned(),
                nonce: self.number(4),
            },
            1 if self.0.one_in(3) => RecordBody::EndSession {
                session: self.session(),
            },
            2 => RecordBody::CloseOrphans {
                session: self.session(),
                inodes: self.list(Self::inode),
            },
            3 | 4 => RecordBody::Settled {
                chunks: self.list(|draw| (draw.chunk(), draw.epoch())),
            },
            5 | 6 => RecordBody::Fence {
                chunks: self.list(|draw| (draw.chunk(), draw.epoch())),
            },
            7 | 8 => RecordBody::Reconciled {
                chunk: self.chunk(),
                epoch: self.epoch(),
                servers: self.list(|draw| ServerId(draw.number(3))),
                lossy: self.0.one_in(2),
                boots: self.list(|draw| BootId(draw.number(3))),
            },
            9 => RecordBody::Adopt {
                chunk: self.chunk(),
                epoch: self.epoch(),
                version: ChunkVersion(self.number(9)),
            },
            10 => RecordBody::Member {
                member: self.number(3),
                address: self.pick(&["", "a:1", "b:2"]).to_owned(),
            },
            11 if self.0.one_in(20) => RecordBody::Recover {
                incarnation: self.number(5),
            },
            13 => RecordBody::ServerLabels {
                server: ServerId(self.number(3)),
                labels: vec![("dc".to_owned(), self.pick(&["west", "east", ""]).to_owned())],
            },
            16 => RecordBody::Archived {
                inodes: self.list(|draw| draw.inode()),
            },
            14 => RecordBody::Converted {
                chunk: self.chunk(),
                epoch: self.epoch(),
                version: ChunkVersion(self.number(4)),
                stripe: Stripe {
                    shape: StripeShape::new(2, 1).expect("a good one"),
                    units: self.number(3) as u32,
                    stamp: Epoch(self.number(3)),
                },
                servers: self
                    .pick(&[[1, 2, 3], [3, 2, 1], [1, 1, 2]])
                    .map(ServerId)
                    .to_vec(),
            },
            15 => RecordBody::Restored {
                chunk: self.chunk(),
                epoch: self.epoch(),
                version: ChunkVersion(self.number(4)),
                stamp: Epoch(self.number(3)),
                servers: self.list(|draw| ServerId(draw.number(3))),
            },
            12 => RecordBody::Found {
                capability_secret: Vec::new(),
                copies: 0,
                level: FeatureLevel::NEWEST,
            },
            _ => {
                *requests += 1;
                let resent = self.0.below(3);
                let request = RequestId(requests.saturating_sub(resent));
                RecordBody::Client(ClientRecord {
                    session: self.session(),
                    request,
                    oldest: RequestId(request.0.saturating_sub(self.0.below(6))),
                    credentials: [root(), root(), alice(), bob()][self.0.below(4) as usize].clone(),
                    mutation: self.mutation(),
                    choice: self.choice(),
                })
            }
        }
    }
}

/// What the changes tell is enough to follow which chunks there are, and where
/// leases moved.
fn follow(chunks: &mut BTreeSet<ChunkId>, changes: &[Change], before: &State, after: &State) {
    for change in changes {
        match change {
            Change::ChunkMade(chunk) => assert!(chunks.insert(*chunk), "{chunk} is new"),
            Change::ChunkGone(chunk) => assert!(chunks.remove(chunk), "{chunk} was there"),
            _ => {}
        }
    }
    assert!(
        after
            .chunks_from(ChunkId(0), usize::MAX)
            .iter()
            .eq(chunks.iter())
    );
    for &chunk in chunks.iter() {
        let same = before.chunk(chunk) == after.chunk(chunk);
        let told = changes.iter().any(|change| match change {
            Change::ChunkMade(told)
            | Change::Lease(told)
            | Change::Synced(told)
            | Change::Copies(told)
            | Change::Stripe(told) => *told == chunk,
            _ => false,
        });
        let (was, is) = (before.chunk(chunk), after.chunk(chunk));
        assert!(
            same || told,
            "{chunk}: nobody was told that {was:?} became {is:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_record_is_judged_alike_everywhere(seed in any::<u64>()) {
        let mut draw = Draw(Rng::new(seed));
        let mut world = World::new();
        let mut other = world.clone();
        world.begin("a", 1);
        other.begin("a", 1);
        (world.checked, other.checked) = (false, false);
        let (mut requests, mut chunks) = (0, BTreeSet::new());
        for n in 0..400 {
            let body = draw.record(&mut requests);
            let before = world.state.clone();
            let applied = world.record(body.clone());
            prop_assert_eq!(&other.record(body), &applied);
            follow(&mut chunks, &applied.changes, &before, &world.state);
            if n % 10 == 0 {
                world.state.check_invariants(true);
            }
            if n % 100 == 50 {
                // From here on one of the two goes on from an image.
                other.state = load(&image(&other.state)).expect("undamaged");
            }
        }
        prop_assert_eq!(world.state.digest(), other.state.digest());
        other.state.check_invariants(true);
    }
}
