//! Storage classes: what is wanted of the copies of a chunk.
//!
//! Owns the policies and the classes' numbers; how a policy is written is in
//! `grammar`, which servers it leads to in `choose`. A class has a policy for
//! chunks that are written, one for those that are at rest, and maybe one for files that
//! have been left alone. Where a policy is of
//! an erasure code, what it says of copies is meant of parts. Invariant: what
//! `Policy::is_sound` accepts has at least one copy and a slot for each.

use super::label::{Expression, Labels, label};
use crate::chunk::geometry::StripeShape;
use crate::limits::COPIES_MAX;
use minicbor::{Decode, Encode};
use std::fmt;

/// Numbers a storage class. The built-in classes `copies-N` have the number of
/// their copies; operators' classes have numbers from [`ClassId::FIRST`] on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Encode, Decode)]
#[cbor(transparent)]
pub struct ClassId(#[n(0)] pub u8);

const _: () = assert!(
    COPIES_MAX < ClassId::FIRST.0,
    "built-in classes lie below the others"
);

impl ClassId {
    /// The lowest number of an operator's class.
    pub const FIRST: Self = Self(32);

    /// The built-in class of so many copies.
    ///
    /// # Panics
    /// When it is not 1..=`COPIES_MAX`.
    #[must_use]
    pub fn copies(copies: u8) -> Self {
        assert!((1..=COPIES_MAX).contains(&copies), "{copies} copies");
        Self(copies)
    }

    /// The copies of a built-in class; `None` for an operator's.
    #[must_use]
    pub fn built_in(self) -> Option<u8> {
        (self < Self::FIRST).then_some(self.0)
    }
}

impl fmt::Display for ClassId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.built_in() {
            Some(copies) => write!(f, "copies-{copies}"),
            None => write!(f, "class {}", self.0),
        }
    }
}

/// The copies of the built-in class of a name.
#[must_use]
pub fn built_in(name: &str) -> Option<ClassId> {
    let copies: u8 = name.strip_prefix("copies-")?.parse().ok()?;
    let class = (1..=COPIES_MAX)
        .contains(&copies)
        .then_some(ClassId(copies))?;
    (class.to_string() == name).then_some(class)
}

/// Whether an operator may call a class so: 1 to 64 of `a-z A-Z 0-9 . _ -`, and
/// nothing that a built-in class is called or may come to be.
#[must_use]
pub fn is_class_name(name: &str) -> bool {
    super::label::is_label(name) && !name.starts_with("copies-")
}

/// How strictly a term is meant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
pub enum Force {
    /// A law: no copy is ever placed against it.
    #[n(0)]
    Hard,
    /// A wish: a copy goes elsewhere when it must, and comes home later.
    #[n(1)]
    Soft,
}

impl fmt::Display for Force {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hard => "hard",
            Self::Soft => "soft",
        })
    }
}

/// What is lost at once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
pub enum Domain {
    /// A server. Two copies of a chunk never share one anyway.
    #[n(0)]
    Server,
    /// A rack: the labels `dc` and `rack` together.
    #[n(1)]
    Rack,
    /// A datacentre: the label `dc`.
    #[n(2)]
    Datacentre,
    /// A machine that runs several chunkservers: the label `host`.
    #[n(3)]
    Host,
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Rack => "rack",
            Self::Datacentre => "dc",
            Self::Host => "host",
        })
    }
}

/// So many copies where an expression holds.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
pub struct Term {
    /// How many, at least 1.
    #[n(0)]
    pub count: u8,
    /// Where.
    #[n(1)]
    pub place: Expression,
    /// How strictly.
    #[n(2)]
    pub force: Force,
}

impl Term {
    /// Whether it is a law.
    #[must_use]
    pub fn is_hard(&self) -> bool {
        self.force == Force::Hard
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {} {}", self.count, self.place, self.force)
    }
}

/// What copies must not share.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
pub struct Differ {
    /// Which domain.
    #[n(0)]
    pub domain: Domain,
    /// How strictly.
    #[n(1)]
    pub force: Force,
}

/// What is wanted of the copies of a chunk. Each copy takes a slot: one of a term,
/// or one of those that no term speaks of, where any server will do.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
pub struct Policy {
    /// How many copies, 1..=`COPIES_MAX`; of a code how many parts it has.
    #[n(0)]
    pub copies: u8,
    /// Where, for as many of them as the terms count.
    #[n(1)]
    pub terms: Vec<Term>,
    /// What they must not share; without it they spread over `dc`, then `rack`.
    #[n(2)]
    pub differ: Option<Differ>,
    /// Of which erasure code they are parts; `None` for whole copies.
    #[n(3)]
    pub stripe: Option<StripeShape>,
}

/// Ways to fill the slots of a policy that are looked at, at most: a policy with more
/// would be slow to meet.
const FILLS_MAX: usize = 1 << 12;

impl Policy {
    /// So many copies anywhere.
    #[must_use]
    pub fn copies(copies: u8) -> Self {
        Self {
            copies,
            terms: Vec::new(),
            differ: None,
            stripe: None,
        }
    }

    /// The parts of a code anywhere.
    #[must_use]
    pub fn parts(shape: StripeShape) -> Self {
        Self {
            stripe: Some(shape),
            ..Self::copies(u8::try_from(shape.parts()).expect("parts are few"))
        }
    }

    /// Whether it keeps the bounds that the type can't.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let fits = |term: &Term| term.count > 0 && term.place.is_sound();
        let counted: usize = self.terms.iter().map(|term| usize::from(term.count)).sum();
        let copies = usize::from(self.copies);
        let right = match self.stripe {
            None => (1..=usize::from(COPIES_MAX)).contains(&copies),
            Some(shape) => copies == shape.parts(),
        };
        right && counted <= copies && self.terms.iter().all(fits) && self.is_simple()
    }

    /// Whether it has so few ways to be filled that the best is found at once.
    pub(crate) fn is_simple(&self) -> bool {
        let counts = self.terms.iter().map(|term| usize::from(term.count));
        let counted: usize = counts.clone().sum();
        let rest = usize::from(self.copies).saturating_sub(counted);
        let mut fills = counts.chain([rest]).map(|count| count + 1);
        fills
            .try_fold(1_usize, |all, one| all.checked_mul(one))
            .is_some_and(|all| all <= FILLS_MAX)
    }

    /// Slots that no term speaks of.
    #[must_use]
    pub fn anywhere(&self) -> u8 {
        let counted: u8 = self.terms.iter().map(|term| term.count).sum();
        self.copies - counted
    }

    /// Whether something of it is a law.
    #[must_use]
    pub fn has_law(&self) -> bool {
        self.terms.iter().any(|term| term.force == Force::Hard) || self.hard_domain().is_some()
    }

    /// Whether any server will do for any copy.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.terms.is_empty() && self.hard_domain().is_none()
    }

    /// The domain that two copies never share.
    pub(crate) fn hard_domain(&self) -> Option<Domain> {
        let hard = self.differ.filter(|differ| differ.force == Force::Hard);
        hard.map(|differ| differ.domain)
            .filter(|domain| *domain != Domain::Server)
    }

    /// Whether a copy may ever lie there: the law of residency. True when there is a
    /// slot for it, whatever else is there.
    #[must_use]
    pub fn permits(&self, labels: &Labels) -> bool {
        let open = self.anywhere() > 0;
        open || self
            .terms
            .iter()
            .any(|term| term.force == Force::Soft || term.place.matches(labels))
    }

    /// Bytes of memory beside the struct.
    pub(crate) fn heap(&self) -> usize {
        let terms = self.terms.iter().map(|term| term.place.heap());
        size_of_val(self.terms.as_slice()) + terms.sum::<usize>()
    }
}

/// As the parser reads it.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut items = Vec::new();
        if let Some(shape) = self.stripe {
            items.push(format!("ec({shape})"));
        } else if self.terms.is_empty() || self.anywhere() > 0 {
            items.push(format!("copies({})", self.copies));
        }
        items.extend(self.terms.iter().map(Term::to_string));
        if let Some(differ) = self.differ {
            items.push(format!("differ by {} {}", differ.domain, differ.force));
        }
        f.write_str(&items.join(", "))
    }
}

/// The value that two places of a domain share. A place without the labels counts as
/// one with all others that have none.
pub(crate) fn domain_of(labels: &Labels, domain: Domain) -> (Option<&str>, Option<&str>) {
    match domain {
        Domain::Server => (None, None),
        Domain::Rack => (label(labels, "dc"), label(labels, "rack")),
        Domain::Datacentre => (label(labels, "dc"), None),
        Domain::Host => (label(labels, "host"), None),
    }
}

/// Which of a file's times counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
pub enum Clock {
    /// When its content changed.
    #[n(0)]
    Mtime,
    /// When anything of it changed.
    #[n(1)]
    Ctime,
    /// When it was read: it moves only by utimensat(2), as with `noatime`.
    #[n(2)]
    Atime,
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mtime => "mtime",
            Self::Ctime => "ctime",
            Self::Atime => "atime",
        })
    }
}

/// What holds for files that have been left alone, until they are written again.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Archive {
    /// For their chunks.
    #[n(0)]
    pub policy: Policy,
    /// For how many seconds they were.
    #[n(1)]
    pub after: u64,
    /// By which time.
    #[n(2)]
    pub by: Clock,
    /// Of files with at least so many bytes.
    #[n(3)]
    pub above: u64,
}

impl fmt::Display for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (policy, after, by) = (&self.policy, self.after, self.by);
        write!(f, "{policy} after {after}s by {by}")?;
        match self.above {
            0 => Ok(()),
            above => write!(f, " above {above}"),
        }
    }
}

/// A storage class: a policy for each state of a chunk's life.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct StorageClass {
    /// For chunks that are made; without it `keep` holds for them too.
    #[n(0)]
    pub create: Option<Policy>,
    /// For chunks at rest.
    #[n(1)]
    pub keep: Policy,
    /// For those of files that have been left alone, instead of `keep`.
    #[n(2)]
    pub archive: Option<Archive>,
}

impl StorageClass {
    /// Whether it keeps the bounds that the type can't.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let making = self.create.iter().chain([&self.keep]);
        let mut all = making.chain(self.archive.iter().map(|archive| &archive.policy));
        all.all(Policy::is_sound) && self.making().stripe.is_none()
    }

    /// What holds for a chunk at rest, of a file that is archived or not.
    #[must_use]
    pub fn resting(&self, archived: bool) -> &Policy {
        let archive = self.archive.as_ref().filter(|_| archived);
        archive.map_or(&self.keep, |archive| &archive.policy)
    }

    /// What holds for whole copies of a chunk at rest, until it lies in parts where it is
    /// to.
    #[must_use]
    pub fn copied(&self, archived: bool) -> &Policy {
        let resting = self.resting(archived);
        match resting.stripe {
            None => resting,
            Some(_) => self.making(),
        }
    }

    /// Whether it says what came with erasure codes: parts, or archives.
    #[must_use]
    pub fn has_codes(&self) -> bool {
        self.keep.stripe.is_some() || self.archive.is_some()
    }

    /// Whether it speaks of hosts.
    #[must_use]
    pub fn has_hosts(&self) -> bool {
        let archive = self.archive.as_ref().map(|archive| &archive.policy);
        let policies = [Some(&self.keep), self.create.as_ref(), archive];
        let mut differ = policies.into_iter().flatten().filter_map(|one| one.differ);
        differ.any(|differ| differ.domain == Domain::Host)
    }

    /// The policy for a chunk at rest, if it is of that code.
    #[must_use]
    pub fn coded(&self, archived: bool, shape: StripeShape) -> Option<&Policy> {
        Some(self.resting(archived)).filter(|policy| policy.stripe == Some(shape))
    }

    /// What holds for a chunk that is made.
    #[must_use]
    pub fn making(&self) -> &Policy {
        self.create.as_ref().unwrap_or(&self.keep)
    }

    /// Whether a copy may ever lie there, being written or at rest.
    #[must_use]
    pub fn permits(&self, labels: &Labels) -> bool {
        let archive = self.resting(true).permits(labels);
        self.keep.permits(labels) || self.making().permits(labels) || archive
    }

    /// Whether something of it is a law.
    #[must_use]
    pub fn has_law(&self) -> bool {
        self.keep.has_law() || self.making().has_law() || self.resting(true).has_law()
    }
}

impl fmt::Display for StorageClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "keep {}", self.keep)?;
        if let Some(create) = &self.create {
            write!(f, "; create {create}")?;
        }
        match &self.archive {
            Some(archive) => write!(f, "; archive {archive}"),
            None => Ok(()),
        }
    }
}
