//! Names and attributes against the reference: every answer of a master to a
//! mutation is what the reference says at the record's place in the log (of attributes
//! also what they were later, up to the answer), and what
//! mounts tell of names and objects was so at some moment of the request.

use crate::model::names::{Expected, Names, Object};
use crate::workload::FileKey;
use antler_core::attributes::{Attributes, FileKind};
use antler_core::client::request::{FileReply, FileRequest};
use antler_core::errno::Errno;
use antler_core::ids::{InodeId, LogPosition, RequestId, SessionId};
use antler_core::limits::NAME_MAX;
use antler_core::namespace::record::{ClientRecord, Record, RecordBody};
use antler_core::version::FeatureLevel;
use antler_core::wire::client_master::Answer;
use std::collections::BTreeMap;

/// What something was, from a record on (records are numbered as they are applied).
type History<T> = Vec<(u64, T)>;

/// A request of a mount that is under way.
struct Asked {
    question: Question,
    /// How many changes had been answered when it began: it must see those.
    since: u64,
}

/// What a mount is asked that the reference can tell.
enum Question {
    Name(InodeId, Vec<u8>),
    Object(InodeId),
    Listing(InodeId),
    Link(InodeId),
    Xattr(InodeId, Vec<u8>),
    /// The feature level is to be raised.
    Raise,
    /// An order that needs a raised level, and whether a raise had been answered before.
    Order {
        raised: bool,
    },
}

/// See the module's doc.
#[derive(Default)]
pub(crate) struct NamesJudge {
    names: Names,
    /// Records applied.
    applied: u64,
    /// By request: its place in the log, and its record's number.
    requests: BTreeMap<(SessionId, RequestId), (LogPosition, u64)>,
    /// By record: as which one in turn its mount had the answer. Every mount sees such
    /// a change from then on; any other may still be unseen by some.
    answered: BTreeMap<u64, u64>,
    dentries: BTreeMap<(InodeId, Vec<u8>), History<Option<InodeId>>>,
    objects: BTreeMap<InodeId, History<Option<Object>>>,
    begun: BTreeMap<u64, Asked>,
    /// A raise of the feature level was answered as done.
    raised: bool,
    /// Answers compared.
    pub(crate) compared: u64,
}

/// Notes what something is behind a record. One that changed nothing, since it was
/// refused, is no change that mounts must have seen when it is answered.
fn note<T: PartialEq>(history: &mut History<T>, record: u64, now: T) {
    if history.last().is_none_or(|(_, before)| *before != now) {
        history.push((record, now));
    }
}

impl NamesJudge {
    /// The next record of the log. `refused` tells whether a commit of written bytes
    /// was refused, which only the chunk table decides.
    pub(crate) fn apply(
        &mut self,
        position: LogPosition,
        record: &Record,
        refused: impl Fn(&ClientRecord) -> Option<bool>,
    ) {
        self.applied += 1;
        if let RecordBody::Client(client) = &record.body {
            let key = (client.session, client.request);
            let place = (position, self.applied);
            self.requests.entry(key).or_insert(place);
        }
        let touched = self.names.apply(record, refused);
        for (parent, name) in touched.names {
            let now = self.names.find(parent, &name);
            let history = self.dentries.entry((parent, name)).or_default();
            note(history, self.applied, now);
        }
        for inode in touched.objects {
            let object = self.names.object(inode).map(Object::without_entries);
            let history = self.objects.entry(inode).or_default();
            note(history, self.applied, object);
        }
    }

    /// The cluster's feature level, as the log has it so far.
    pub(crate) fn level(&self) -> FeatureLevel {
        self.names.level()
    }

    /// A metalogger becomes the new master, with an image that no log led to.
    pub(crate) fn take_over(&mut self) {
        self.names.lose();
    }

    /// A mount is asked.
    pub(crate) fn on_asked(&mut self, operation: u64, body: &FileRequest) {
        let question = match body {
            FileRequest::Lookup { parent, name } => Question::Name(*parent, name.clone()),
            FileRequest::GetAttributes { inode } => Question::Object(*inode),
            FileRequest::ReadDirectory { inode, .. } => Question::Listing(*inode),
            FileRequest::ReadLink { inode } => Question::Link(*inode),
            FileRequest::GetXattr { inode, name } => Question::Xattr(*inode, name.clone()),
            FileRequest::RaiseLevel { .. } => Question::Raise,
            FileRequest::ChangeClass(_)
            | FileRequest::SetClass { .. }
            | FileRequest::SetPatterns { .. }
            | FileRequest::SetLabel { .. } => Question::Order {
                raised: self.raised,
            },
            _ => return,
        };
        let since = self.answered.len() as u64;
        self.begun.insert(operation, Asked { question, since });
    }

    /// A mount answers.
    ///
    /// # Errors
    /// When that was so at no moment since it was asked.
    pub(crate) fn on_answered(
        &mut self,
        operation: u64,
        result: &Result<FileReply, Errno>,
    ) -> Result<(), String> {
        let Some(Asked { question, since }) = self.begun.remove(&operation) else {
            return Ok(());
        };
        if !self.names.knows() {
            return Ok(());
        }
        self.compared += 1;
        match (&question, result) {
            (Question::Name(parent, name), Ok(FileReply::Absent(_))) if name.len() > NAME_MAX => {
                Err(format!(
                    "a name too long for {parent} was told to be absent"
                ))
            }
            (Question::Name(parent, name), Ok(FileReply::Absent(_))) => {
                self.judge_name(since, *parent, name, None)
            }
            (Question::Name(parent, name), Ok(FileReply::Entry(told, _))) => {
                self.judge_name(since, *parent, name, Some(told.inode))?;
                self.judge_object(since, told.inode, told)
            }
            (Question::Object(inode), Ok(FileReply::Attributes(told, _))) => {
                self.judge_object(since, *inode, told)
            }
            (Question::Listing(folder), Ok(FileReply::Entries { entries, .. })) => {
                entries.iter().try_for_each(|entry| {
                    let inode = entry.attributes.inode;
                    self.judge_name(since, *folder, &entry.name, Some(inode))
                })
            }
            (Question::Link(inode), Ok(FileReply::Bytes(told))) => {
                let target = |object: &Object| object.target == told[..];
                self.judge(since, *inode, target, || {
                    format!("readlink tells {:?}", String::from_utf8_lossy(told))
                })
            }
            (Question::Xattr(inode, name), Ok(FileReply::Bytes(told))) => {
                let value = |object: &Object| object.xattr(name) == Some(&told[..]);
                self.judge(since, *inode, value, || format!("an xattr is {told:02x?}"))
            }
            (Question::Xattr(inode, name), Err(Errno::ENODATA)) => {
                let absent = |object: &Object| object.xattr(name).is_none();
                self.judge(since, *inode, absent, || "an xattr is absent".to_owned())
            }
            (Question::Name(parent, name), Err(Errno::ENAMETOOLONG)) => {
                match name.len() > NAME_MAX {
                    true => Ok(()),
                    false => Err(format!("a name in {parent} was told to be too long")),
                }
            }
            (Question::Raise, told) => {
                self.raised |= told.is_ok();
                Ok(())
            }
            (Question::Order { raised: true }, Err(Errno::EOPNOTSUPP)) => Err(
                "an order was refused for a feature level that was said to be raised".to_owned(),
            ),
            (question, Err(errno)) => self.judge_error(since, question, *errno),
            _ => Ok(()),
        }
    }

    fn judge_name(
        &self,
        since: u64,
        parent: InodeId,
        name: &[u8],
        told: Option<InodeId>,
    ) -> Result<(), String> {
        // Before its first change a name was not there.
        let never = Vec::new();
        let history = self.dentries.get(&(parent, name.to_vec()));
        let (before, window) = self.window(history.unwrap_or(&never), since);
        let possible: Vec<_> = window.iter().map(|(_, inode)| *inode).collect();
        if possible.contains(&told) || (before && told.is_none()) {
            return Ok(());
        }
        let name = String::from_utf8_lossy(name);
        Err(format!(
            "{name:?} in {parent} was told to be {told:?}, but meanwhile was {possible:?}"
        ))
    }

    fn judge_object(&self, since: u64, asked: InodeId, told: &Attributes) -> Result<(), String> {
        let same = |object: &Object| {
            told.inode == asked && object.differs_apart_from_content(told).is_none()
        };
        self.judge(since, asked, same, || {
            let now = self.names.object(asked);
            let how = now.and_then(|object| object.differs_apart_from_content(told));
            how.unwrap_or_else(|| format!("{told:?}"))
        })
    }

    /// Something was told of an object: at some moment meanwhile it was so.
    fn judge(
        &self,
        since: u64,
        inode: InodeId,
        is_so: impl Fn(&Object) -> bool,
        what: impl Fn() -> String,
    ) -> Result<(), String> {
        let Some(history) = self.objects.get(&inode) else {
            return Err(format!("{inode} never was, but of it {}", what()));
        };
        let (_, window) = self.window(history, since);
        match window
            .iter()
            .any(|(_, was)| was.as_ref().is_some_and(&is_so))
        {
            true => Ok(()),
            false => Err(format!("of {inode}, at no moment meanwhile: {}", what())),
        }
    }

    /// An object that was there all the time is not gone.
    fn judge_error(&self, since: u64, question: &Question, errno: Errno) -> Result<(), String> {
        let (Question::Name(inode, _)
        | Question::Object(inode)
        | Question::Listing(inode)
        | Question::Link(inode)
        | Question::Xattr(inode, _)) = question
        else {
            return Ok(());
        };
        let gone = matches!(errno, Errno::ESTALE | Errno::ENOENT);
        let there = |history: &History<Option<Object>>| {
            let (before, window) = self.window(history, since);
            !before && window.iter().all(|(_, object)| object.is_some())
        };
        match gone && self.objects.get(inode).is_some_and(there) {
            true => Err(format!("{errno:?} was told of {inode}, which is there")),
            false => Ok(()),
        }
    }

    /// What something was since a request began: from the last change on that had been
    /// answered by then. The flag: it may also have been as before its first change.
    fn window<'h, T>(&self, history: &'h History<T>, since: u64) -> (bool, &'h [(u64, T)]) {
        let seen = |record: &u64| self.answered.get(record).is_some_and(|turn| *turn <= since);
        match history.iter().rposition(|(record, _)| seen(record)) {
            Some(last) => (false, &history[last..]),
            None => (true, history),
        }
    }

    /// Compares the names that a walk over the whole tree found.
    ///
    /// # Errors
    /// The first name that is wrong, missing or too much.
    pub(crate) fn judge_walk(
        &mut self,
        found: &BTreeMap<(InodeId, Vec<u8>), FileKey>,
    ) -> Result<(), String> {
        if !self.names.knows() {
            return Ok(());
        }
        let mut expected = BTreeMap::new();
        let mut folders = vec![InodeId::ROOT];
        while let Some(folder) = folders.pop() {
            for (name, inode) in self.names.names(folder) {
                expected.insert((folder, name.to_vec()), inode);
                let object = self.names.object(inode);
                if object.is_some_and(|object| object.kind == FileKind::Directory) {
                    folders.push(inode);
                }
            }
        }
        self.compared += expected.len() as u64;
        let found: BTreeMap<_, _> = found
            .iter()
            .map(|(name, key)| (name.clone(), key.0))
            .collect();
        let wrong = expected
            .iter()
            .find(|(name, inode)| found.get(*name) != Some(*inode))
            .or_else(|| found.iter().find(|(name, _)| !expected.contains_key(*name)));
        match wrong {
            None => Ok(()),
            Some(((folder, name), inode)) => Err(format!(
                "{:?} in {folder} ({inode}): the reference has {:?}, a mount {:?}",
                String::from_utf8_lossy(name),
                expected.get(&(*folder, name.clone())),
                found.get(&(*folder, name.clone())),
            )),
        }
    }

    /// A mount has the answer to its mutation: from now on all of them see the change.
    pub(crate) fn on_mutation_told(&mut self, session: SessionId, request: RequestId) {
        let turn = self.answered.len() as u64 + 1;
        if let Some(&(_, record)) = self.requests.get(&(session, request)) {
            self.answered.entry(record).or_insert(turn);
        }
    }

    /// A master answers a mutation.
    ///
    /// # Errors
    /// When the answer is not what the reference says, or not the first one again.
    pub(crate) fn on_mutation_answered(
        &mut self,
        session: SessionId,
        request: RequestId,
        result: &Result<Answer, Errno>,
    ) -> Result<(), String> {
        let Some(&(position, record)) = self.requests.get(&(session, request)) else {
            return Ok(());
        };
        if !self.names.knows() {
            return Ok(());
        }
        let Some(expected) = self.names.expected(session, request) else {
            return Ok(());
        };
        self.compared += 1;
        match compare(expected, result) {
            // The leader adds what is so when it answers.
            Some(wrong) if !self.was_so_since(record, expected, result) => {
                Err(format!("{request} of {session} at {position}: {wrong}"))
            }
            _ => Ok(()),
        }
    }

    /// Whether the object that was expected has the told attributes since a later record.
    fn was_so_since(&self, record: u64, expected: &Expected, told: &Result<Answer, Errno>) -> bool {
        let (Expected::Object(inode, _), Ok(told)) = (expected, told) else {
            return false;
        };
        let (Answer::Entry(told)
        | Answer::Created {
            attributes: told, ..
        }) = told
        else {
            return false;
        };
        let later = |(at, _): &&(u64, Option<Object>)| *at > record;
        let same = |object: &Object| object.differs(told).is_none();
        let mut history = self.objects.get(inode).into_iter().flatten();
        told.inode == *inode && history.any(|was| later(&was) && was.1.as_ref().is_some_and(same))
    }
}

fn compare(expected: &Expected, told: &Result<Answer, Errno>) -> Option<String> {
    match (expected, told) {
        // Asked to come again: the request took no effect here.
        (Expected::Unknown, _) | (_, Err(Errno::EAGAIN)) => None,
        (Expected::Error(here), Err(there)) if here == there => None,
        (Expected::Error(here), told) => Some(format!("{told:?} was told, not {here:?}")),
        (Expected::Done, Ok(_)) => None,
        (Expected::Object(inode, object), Ok(told)) => {
            let (Answer::Entry(attributes) | Answer::Created { attributes, .. }) = told else {
                return Some(format!("{told:?} was told, not an object"));
            };
            if attributes.inode != *inode {
                return Some(format!("{} was told, not {inode}", attributes.inode));
            }
            object.differs(attributes)
        }
        (expected, Err(errno)) => Some(format!("{errno:?} was told, not {expected:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use antler_core::attributes::{AttributeChange, Credentials, XattrMode};
    use antler_core::ids::Generation;
    use antler_core::namespace::record::{Choice, Mutation};
    use antler_core::time::{Duration, Timestamp};

    const SESSION: SessionId = SessionId(1);

    /// A reference that one session makes changes in, one request after the other.
    struct Story {
        judge: NamesJudge,
        records: u64,
    }

    impl Story {
        fn new() -> Self {
            let judge = NamesJudge::default();
            let mut story = Self { judge, records: 0 };
            story.log(RecordBody::Found {
                capability_secret: Vec::new(),
                copies: 2,
                level: FeatureLevel::NEWEST,
            });
            story.log(RecordBody::BeginSession {
                name: "mount".to_owned(),
                nonce: 7,
            });
            story
        }

        fn log(&mut self, body: RecordBody) {
            self.records += 1;
            let time = Timestamp {
                seconds: self.records as i64,
                nanos: 0,
            };
            let record = Record { time, body };
            let position = LogPosition(self.records);
            self.judge.apply(position, &record, |_| None);
        }

        fn request(&mut self, request: u64, mutation: Mutation) {
            self.log(RecordBody::Client(ClientRecord {
                session: SESSION,
                request: RequestId(request),
                oldest: RequestId(1),
                credentials: Credentials::default(),
                mutation,
                choice: Choice::default(),
            }));
        }

        fn answer(&mut self, request: u64, result: Result<Answer, Errno>) -> Result<(), String> {
            let request = RequestId(request);
            let found = self.judge.on_mutation_answered(SESSION, request, &result);
            self.judge.on_mutation_told(SESSION, request);
            found
        }

        /// What the reference itself would tell of an object.
        fn told(&self, inode: u64) -> Attributes {
            let inode = InodeId(inode);
            let object = self.judge.names.object(inode).unwrap();
            let [atime, mtime, ctime] = object.times.unwrap();
            Attributes {
                inode,
                generation: Generation(1),
                kind: object.kind,
                mode: object.mode,
                nlink: object.nlink,
                uid: object.uid,
                gid: object.gid,
                device: 0,
                size: object.size.unwrap(),
                allocated: 0,
                atime,
                mtime,
                ctime,
                change: 0,
                copies: object.copies,
                no_xattrs: false,
            }
        }

        /// Whether a mount may find this under `f` in the root.
        fn finds(&mut self, asked: u64, inode: Option<u64>) -> bool {
            let reply = match inode {
                Some(inode) => FileReply::Entry(self.told(inode), Duration::ZERO),
                None => FileReply::Absent(Duration::ZERO),
            };
            self.judge.on_answered(asked, &Ok(reply)).is_ok()
        }

        fn ask(&mut self, asked: u64) {
            let (parent, name) = (InodeId::ROOT, b"f".to_vec());
            self.judge
                .on_asked(asked, &FileRequest::Lookup { parent, name });
        }
    }

    fn make(exclusive: bool) -> Mutation {
        Mutation::Create {
            parent: InodeId::ROOT,
            name: b"f".to_vec(),
            kind: FileKind::Regular,
            mode: 0o644,
            device: 0,
            target: Vec::new(),
            exclusive,
            write: false,
        }
    }

    fn created(attributes: Attributes) -> Result<Answer, Errno> {
        Ok(Answer::Created {
            attributes,
            existed: false,
            lease: None,
        })
    }

    #[test]
    fn an_answer_is_what_the_reference_says_every_time_it_is_given() {
        let mut story = Story::new();
        story.request(1, make(true));
        let right = story.told(2);
        assert_eq!(story.answer(1, created(right)), Ok(()));
        // The same request in the log again changes nothing, and has the first answer.
        story.request(1, make(true));
        assert_eq!(story.answer(1, created(right)), Ok(()));
        story.answer(1, Err(Errno::EEXIST)).unwrap_err();
        for wrong in [
            Attributes { nlink: 2, ..right },
            Attributes { mode: 0, ..right },
            Attributes { size: 1, ..right },
            Attributes {
                inode: InodeId(3),
                ..right
            },
            Attributes {
                ctime: Timestamp {
                    seconds: right.ctime.seconds + 1,
                    ..right.ctime
                },
                ..right
            },
        ] {
            story.answer(1, created(wrong)).unwrap_err();
        }
        story.request(2, make(true));
        assert_eq!(story.answer(2, Err(Errno::EEXIST)), Ok(()));
        story.answer(2, created(right)).unwrap_err();
        story.answer(2, Err(Errno::ENOENT)).unwrap_err();
    }

    #[test]
    fn an_object_with_extended_attributes_is_not_told_to_have_none() {
        let mut story = Story::new();
        story.request(1, make(true));
        story.answer(1, created(story.told(2))).unwrap();
        let inode = InodeId(2);
        let none = |story: &Story| {
            FileReply::Attributes(
                Attributes {
                    no_xattrs: true,
                    ..story.told(2)
                },
                Duration::ZERO,
            )
        };
        let question = FileRequest::GetAttributes { inode };
        story.judge.on_asked(1, &question);
        let told = none(&story);
        assert_eq!(story.judge.on_answered(1, &Ok(told)), Ok(()));
        story.request(
            2,
            Mutation::SetXattr {
                inode,
                name: b"user.sim".to_vec(),
                value: vec![1],
                mode: XattrMode::Any,
            },
        );
        story.answer(2, Ok(Answer::Done)).unwrap();
        story.judge.on_asked(2, &question);
        let told = none(&story);
        story.judge.on_answered(2, &Ok(told)).unwrap_err();
    }

    #[test]
    fn attributes_may_be_those_of_a_later_record() {
        let mut story = Story::new();
        story.request(1, make(true));
        let before = story.told(2);
        let change = AttributeChange {
            mode: Some(0o600),
            ..AttributeChange::default()
        };
        let inode = InodeId(2);
        story.request(2, Mutation::SetAttributes { inode, change });
        let after = story.told(2);
        assert_eq!(story.answer(1, created(before)), Ok(()));
        assert_eq!(story.answer(1, created(after)), Ok(()));
        // The other way round it is not: a change is seen in its own answer.
        assert_eq!(story.answer(2, Ok(Answer::Entry(after))), Ok(()));
        story.answer(2, Ok(Answer::Entry(before))).unwrap_err();
    }

    #[test]
    fn a_name_is_told_as_it_was_at_some_moment_of_the_request() {
        let mut story = Story::new();
        (1..6).for_each(|asked| story.ask(asked));
        story.request(1, make(true));
        // Not answered yet: both may be seen.
        assert!(story.finds(1, None) && story.finds(2, Some(2)));
        story.answer(1, created(story.told(2))).unwrap();
        assert!(story.finds(3, None));
        (6..9).for_each(|asked| story.ask(asked));
        assert!(!story.finds(6, None));
        assert!(story.finds(7, Some(2)));
        let (parent, name) = (InodeId::ROOT, b"f".to_vec());
        story.request(2, Mutation::Unlink { parent, name });
        assert!(story.finds(8, None));
    }

    #[test]
    fn an_answer_that_refuses_shows_nobody_an_unanswered_change() {
        let mut story = Story::new();
        story.request(1, make(true));
        story.request(2, make(true));
        story.answer(2, Err(Errno::EEXIST)).unwrap();
        (1..3).for_each(|asked| story.ask(asked));
        assert!(story.finds(1, None) && story.finds(2, Some(2)));
    }

    #[test]
    fn what_is_there_all_the_time_is_not_gone() {
        let mut story = Story::new();
        story.request(1, make(true));
        story.answer(1, created(story.told(2))).unwrap();
        let question = FileRequest::GetAttributes { inode: InodeId(2) };
        let gone = Err(Errno::ESTALE);
        story.judge.on_asked(1, &question);
        story.judge.on_answered(1, &gone).unwrap_err();
        story.judge.on_asked(2, &question);
        let (parent, name) = (InodeId::ROOT, b"f".to_vec());
        story.request(2, Mutation::Unlink { parent, name });
        assert_eq!(story.judge.on_answered(2, &gone), Ok(()));
    }

    #[test]
    fn an_orphan_is_gone_once_nobody_keeps_it() {
        let mut story = Story::new();
        story.request(1, make(true));
        story.answer(1, created(story.told(2))).unwrap();
        let (parent, name) = (InodeId::ROOT, b"f".to_vec());
        story.log(RecordBody::Client(ClientRecord {
            session: SESSION,
            request: RequestId(2),
            oldest: RequestId(1),
            credentials: Credentials::default(),
            mutation: Mutation::Unlink { parent, name },
            choice: Choice {
                open_by: vec![(InodeId(2), SESSION)],
                ..Choice::default()
            },
        }));
        story.answer(2, Ok(Answer::Done)).unwrap();
        let question = FileRequest::GetAttributes { inode: InodeId(2) };
        let gone = Err(Errno::ESTALE);
        story.judge.on_asked(1, &question);
        story.judge.on_answered(1, &gone).unwrap_err();
        story.judge.on_asked(2, &question);
        let inodes = vec![InodeId(2)];
        story.log(RecordBody::CloseOrphans {
            session: SESSION,
            inodes,
        });
        assert_eq!(story.judge.on_answered(2, &gone), Ok(()));
    }
}
