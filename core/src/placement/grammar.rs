//! How a policy is written, and what is wrong with one that is not.
//!
//! ```text
//! policy     = item { "," item }
//! item       = "copies" "(" N ")"                      copies in all
//!            | "ec" "(" K "+" M ")"                    K data and M parity parts instead
//!            | N "in" expression [ force ]             a term
//!            | "differ" "by" domain [ force ]          at most once
//! force      = "hard" | "soft"                         hard unless said otherwise
//! domain     = "server" | "rack" | "dc"
//! expression = both { "or" both }
//! both       = one { "and" one }
//! one        = "not" one | "(" expression ")" | KEY "=" VALUE
//! archive    = policy "after" AGE [ "by" clock ] [ "above" SIZE ]
//! clock      = "mtime" | "ctime" | "atime"              mtime unless said otherwise
//! AGE        = N ( "s" | "min" | "h" | "d" )            SIZE = N [ "KiB" | "MiB" | "GiB" | "TiB" ]
//! ```
//!
//! Without `copies(..)` there are as many copies as the terms count; behind `ec(..)` the
//! terms count parts. Owns the
//! text alone; the bounds of a policy are `class`'s. Invariant: what a policy is
//! displayed as reads as that policy.

use super::class::{Archive, Clock, Differ, Domain, Force, Policy, Term};
use super::label::{Expression, OPERATIONS_MAX, Operation, is_label, is_label_byte};
use crate::chunk::geometry::StripeShape;
use crate::limits::{COPIES_MAX, PARTS_MAX};
use std::fmt;
use std::str::FromStr;

const AGES: &[(&str, u64)] = &[("s", 1), ("min", 60), ("h", 3600), ("d", 86_400)];
const SIZES: &[(&str, u64)] = &[
    ("", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];
/// Parentheses and `not` one in the other.
const NESTING_MAX: usize = 32;

/// What is wrong with the text of a policy, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistake {
    /// Counted in bytes from 1.
    pub column: usize,
    /// What is wrong there.
    pub reason: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {}: {}", self.column, self.reason)
    }
}

impl std::error::Error for Mistake {}

impl FromStr for Policy {
    type Err = Mistake;

    fn from_str(text: &str) -> Result<Self, Mistake> {
        Parser::new(text)?.policy()
    }
}

impl FromStr for Archive {
    type Err = Mistake;

    fn from_str(text: &str) -> Result<Self, Mistake> {
        let mut parser = Parser::new(text)?;
        let policy = parser.items()?;
        parser.demand("after")?;
        let after = parser.quantity(AGES, "an age as 12h or 30d")?;
        let by = match parser.accept("by") {
            true => parser.clock()?,
            false => Clock::Mtime,
        };
        let above = match parser.accept("above") {
            true => parser.quantity(SIZES, "a size as 1MiB")?,
            false => 0,
        };
        parser.end()?;
        Ok(Self {
            policy,
            after,
            by,
            above,
        })
    }
}

impl FromStr for Expression {
    type Err = Mistake;

    fn from_str(text: &str) -> Result<Self, Mistake> {
        let mut parser = Parser::new(text)?;
        let place = parser.expression()?;
        parser.end()?;
        Ok(place)
    }
}

/// A word or a sign, and the column where it begins.
#[derive(Clone, Copy)]
struct Token<'t> {
    column: usize,
    text: &'t str,
}

struct Parser<'t> {
    tokens: Vec<Token<'t>>,
    next: usize,
    end: usize,
    nesting: usize,
}

/// What was read of a policy so far.
#[derive(Default)]
struct Draft {
    copies: Option<(usize, u8)>,
    stripe: Option<(usize, StripeShape)>,
    terms: Vec<Term>,
    differ: Option<Differ>,
}

impl<'t> Parser<'t> {
    fn new(text: &'t str) -> Result<Self, Mistake> {
        let (tokens, end) = (tokens(text)?, text.len() + 1);
        Ok(Self {
            tokens,
            next: 0,
            end,
            nesting: 0,
        })
    }

    fn policy(mut self) -> Result<Policy, Mistake> {
        let policy = self.items()?;
        self.end()?;
        Ok(policy)
    }

    fn items(&mut self) -> Result<Policy, Mistake> {
        let mut draft = Draft::default();
        loop {
            self.item(&mut draft)?;
            if !self.accept(",") {
                return self.sum_up(draft);
            }
        }
    }

    /// A number with a unit behind it, in the least unit.
    fn quantity(&mut self, units: &[(&str, u64)], wanted: &str) -> Result<u64, Mistake> {
        let token = self.word(wanted)?;
        let digits = token.text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = token.text.split_at(digits);
        let known = units.iter().find(|(name, _)| *name == unit);
        let number: Option<u64> = number.parse().ok();
        let quantity = number
            .zip(known)
            .and_then(|(number, (_, factor))| number.checked_mul(*factor));
        quantity.ok_or_else(|| wrong(token, format!("`{}` is not {wanted}", token.text)))
    }

    fn clock(&mut self) -> Result<Clock, Mistake> {
        let token = self.word("`mtime`, `ctime` or `atime`")?;
        match token.text {
            "mtime" => Ok(Clock::Mtime),
            "ctime" => Ok(Clock::Ctime),
            "atime" => Ok(Clock::Atime),
            text => Err(wrong(
                token,
                format!("`{text}` is not `mtime`, `ctime` or `atime`"),
            )),
        }
    }

    fn sum_up(&self, draft: Draft) -> Result<Policy, Mistake> {
        let counted: u32 = draft.terms.iter().map(|term| u32::from(term.count)).sum();
        let (column, copies, most) = match (draft.stripe, draft.copies) {
            (Some((column, _)), Some(_)) => {
                let reason = "`ec` and `copies` exclude each other".to_owned();
                return Err(Mistake { column, reason });
            }
            (Some((column, shape)), None) => (column, shape.parts() as u32, PARTS_MAX),
            (None, Some((column, copies))) => (column, u32::from(copies), COPIES_MAX),
            (None, None) => (1, counted, COPIES_MAX),
        };
        let wrong = |reason| Mistake { column, reason };
        if copies == 0 {
            return Err(self.wrong_here("it says nowhere how many copies"));
        }
        let what = draft.stripe.map_or("copies", |_| "parts");
        if counted > copies {
            let reason = format!("the terms count {counted} {what}, more than {copies}");
            return Err(wrong(reason));
        }
        let copies = u8::try_from(copies).ok().filter(|n| *n <= most);
        let copies =
            copies.ok_or_else(|| wrong(format!("{counted} {what}: {COPIES_MAX} at most")))?;
        let policy = Policy {
            copies,
            terms: draft.terms,
            differ: draft.differ,
            stripe: draft.stripe.map(|(_, shape)| shape),
        };
        match policy.is_simple() {
            true => Ok(policy),
            false => Err(wrong("it has too many terms for so many parts".to_owned())),
        }
    }

    /// `(K+M)` behind `ec`.
    fn shape(&mut self) -> Result<StripeShape, Mistake> {
        self.demand("(")?;
        let data = self.word("a number of data parts")?;
        self.demand("+")?;
        let parity = self.word("a number of parity parts")?;
        self.demand(")")?;
        let numbers = data.text.parse().ok().zip(parity.text.parse().ok());
        let shape = numbers.and_then(|(data, parity)| StripeShape::new(data, parity).ok());
        shape.ok_or_else(|| {
            let text = format!("{}+{}", data.text, parity.text);
            wrong(
                data,
                format!("`{text}` is no code: 2 to 32 data parts + 1 to 8 parity parts"),
            )
        })
    }

    fn item(&mut self, draft: &mut Draft) -> Result<(), Mistake> {
        let Some(token) = self.peek() else {
            return Err(
                self.wrong_here("`copies(N)`, `ec(K+M)`, `N in ...` or `differ by ...` is missing")
            );
        };
        match token.text {
            "copies" => {
                self.next += 1;
                self.demand("(")?;
                let copies = self.count(COPIES_MAX)?;
                self.demand(")")?;
                let twice = draft.copies.replace((token.column, copies)).is_some();
                refuse(twice, token, "`copies` is there twice")
            }
            "ec" => {
                self.next += 1;
                let shape = self.shape()?;
                let twice = draft.stripe.replace((token.column, shape)).is_some();
                refuse(twice, token, "`ec` is there twice")
            }
            "differ" => {
                self.next += 1;
                self.demand("by")?;
                let domain = self.domain()?;
                let force = self.force();
                let twice = draft.differ.replace(Differ { domain, force }).is_some();
                refuse(twice, token, "`differ by` is there twice")
            }
            text if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                let count = self.count(PARTS_MAX)?;
                self.demand("in")?;
                let (place, force) = (self.expression()?, self.force());
                draft.terms.push(Term {
                    count,
                    place,
                    force,
                });
                Ok(())
            }
            text => Err(wrong(
                token,
                format!("`{text}` is not `copies(N)`, `ec(K+M)`, `N in ...` or `differ by ...`"),
            )),
        }
    }

    fn count(&mut self, most: u8) -> Result<u8, Mistake> {
        let token = self.word("a number of copies")?;
        let count = token.text.parse().ok();
        let count = count.filter(|count| (1..=most).contains(count));
        count.ok_or_else(|| {
            let text = token.text;
            wrong(token, format!("`{text}` is not a number from 1 to {most}"))
        })
    }

    fn domain(&mut self) -> Result<Domain, Mistake> {
        let token = self.word("`server`, `host`, `rack` or `dc`")?;
        match token.text {
            // Two copies on a server would be on one disk for all that anybody knows.
            "server" | "disk" => Ok(Domain::Server),
            "host" => Ok(Domain::Host),
            "rack" => Ok(Domain::Rack),
            "dc" => Ok(Domain::Datacentre),
            text => Err(wrong(
                token,
                format!("`{text}` is not `server`, `host`, `rack` or `dc`"),
            )),
        }
    }

    fn force(&mut self) -> Force {
        if self.accept("soft") {
            return Force::Soft;
        }
        self.accept("hard");
        Force::Hard
    }

    fn expression(&mut self) -> Result<Expression, Mistake> {
        let column = self.column();
        let mut operations = Vec::new();
        self.either(&mut operations)?;
        if operations.len() > OPERATIONS_MAX {
            let reason = format!("longer than {OPERATIONS_MAX} labels and operators");
            return Err(Mistake { column, reason });
        }
        Ok(Expression { operations })
    }

    fn either(&mut self, out: &mut Vec<Operation>) -> Result<(), Mistake> {
        self.both(out)?;
        while self.accept("or") {
            self.both(out)?;
            out.push(Operation::Or);
        }
        Ok(())
    }

    fn both(&mut self, out: &mut Vec<Operation>) -> Result<(), Mistake> {
        self.one(out)?;
        while self.accept("and") {
            self.one(out)?;
            out.push(Operation::And);
        }
        Ok(())
    }

    fn one(&mut self, out: &mut Vec<Operation>) -> Result<(), Mistake> {
        self.nesting += 1;
        if self.nesting > NESTING_MAX {
            return Err(self.wrong_here("nested too deeply"));
        }
        let is_key = self
            .tokens
            .get(self.next + 1)
            .is_some_and(|token| token.text == "=");
        if !is_key && self.accept("not") {
            self.one(out)?;
            out.push(Operation::Not);
        } else if self.accept("(") {
            self.either(out)?;
            self.demand(")")?;
        } else {
            let key = self.label()?;
            self.demand("=")?;
            let value = self.label()?;
            out.push(Operation::Is { key, value });
        }
        self.nesting -= 1;
        Ok(())
    }

    fn label(&mut self) -> Result<String, Mistake> {
        let token = self.word("a label")?;
        if is_label(token.text) {
            return Ok(token.text.to_owned());
        }
        Err(wrong(
            token,
            "a label is 1 to 64 of a-z A-Z 0-9 . _ -".to_owned(),
        ))
    }

    /// The next token, which must be a word.
    fn word(&mut self, wanted: &str) -> Result<Token<'t>, Mistake> {
        match self.peek() {
            Some(token) if token.text.bytes().all(is_label_byte) => {
                self.next += 1;
                Ok(token)
            }
            Some(token) => Err(wrong(
                token,
                format!("`{}` instead of {wanted}", token.text),
            )),
            None => Err(self.wrong_here(&format!("{wanted} is missing"))),
        }
    }

    fn demand(&mut self, text: &str) -> Result<(), Mistake> {
        if self.accept(text) {
            return Ok(());
        }
        match self.peek() {
            Some(token) => Err(wrong(
                token,
                format!("`{}` instead of `{text}`", token.text),
            )),
            None => Err(self.wrong_here(&format!("`{text}` is missing"))),
        }
    }

    fn accept(&mut self, text: &str) -> bool {
        let is_next = self.peek().is_some_and(|token| token.text == text);
        self.next += usize::from(is_next);
        is_next
    }

    fn end(&self) -> Result<(), Mistake> {
        match self.peek() {
            Some(token) => Err(wrong(
                token,
                format!("`{}` makes no sense here", token.text),
            )),
            None => Ok(()),
        }
    }

    fn peek(&self) -> Option<Token<'t>> {
        self.tokens.get(self.next).copied()
    }

    fn column(&self) -> usize {
        self.peek().map_or(self.end, |token| token.column)
    }

    fn wrong_here(&self, reason: &str) -> Mistake {
        Mistake {
            column: self.column(),
            reason: reason.to_owned(),
        }
    }
}

fn wrong(token: Token<'_>, reason: String) -> Mistake {
    Mistake {
        column: token.column,
        reason,
    }
}

fn refuse(is_wrong: bool, token: Token<'_>, reason: &str) -> Result<(), Mistake> {
    if is_wrong {
        Err(wrong(token, reason.to_owned()))
    } else {
        Ok(())
    }
}

/// Words and signs.
fn tokens(text: &str) -> Result<Vec<Token<'_>>, Mistake> {
    let mut tokens = Vec::new();
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let length = match bytes[at] {
            b' ' | b'\t' => {
                at += 1;
                continue;
            }
            b',' | b'(' | b')' | b'=' | b'+' => 1,
            byte if is_label_byte(byte) => {
                let rest = bytes[at..].iter();
                rest.take_while(|byte| is_label_byte(**byte)).count()
            }
            _ => {
                let sign = text[at..].chars().next().unwrap_or_default();
                let (column, reason) = (at + 1, format!("{sign:?} means nothing here"));
                return Err(Mistake { column, reason });
            }
        };
        let (column, text) = (at + 1, &text[at..at + length]);
        tokens.push(Token { column, text });
        at += length;
    }
    Ok(tokens)
}
