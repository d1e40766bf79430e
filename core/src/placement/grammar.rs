//! How a policy is written, and what is wrong with one that is not.
//!
//! ```text
//! policy     = item { "," item }
//! item       = "copies" "(" N ")"                      copies in all
//!            | N "in" expression [ force ]             a term
//!            | "differ" "by" domain [ force ]          at most once
//! force      = "hard" | "soft"                         hard unless said otherwise
//! domain     = "server" | "rack" | "dc"
//! expression = both { "or" both }
//! both       = one { "and" one }
//! one        = "not" one | "(" expression ")" | KEY "=" VALUE
//! ```
//!
//! Without `copies(..)` there are as many copies as the terms count. Owns the
//! text alone; the bounds of a policy are `class`'s. Invariant: what a policy is
//! displayed as reads as that policy.

use super::class::{Differ, Domain, Force, Policy, Term};
use super::label::{Expression, OPERATIONS_MAX, Operation, is_label, is_label_byte};
use crate::limits::COPIES_MAX;
use std::fmt;
use std::str::FromStr;

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
        let mut draft = Draft::default();
        loop {
            self.item(&mut draft)?;
            if !self.accept(",") {
                break;
            }
        }
        self.end()?;
        self.sum_up(draft)
    }

    fn sum_up(&self, draft: Draft) -> Result<Policy, Mistake> {
        let counted: u32 = draft.terms.iter().map(|term| u32::from(term.count)).sum();
        let (column, copies) = match draft.copies {
            Some((column, copies)) => (column, u32::from(copies)),
            None => (1, counted),
        };
        if copies == 0 {
            return Err(self.wrong_here("it says nowhere how many copies"));
        }
        if counted > copies {
            let reason = format!("the terms count {counted} copies, more than {copies}");
            return Err(Mistake { column, reason });
        }
        let copies = u8::try_from(copies).ok().filter(|n| *n <= COPIES_MAX);
        let copies = copies.ok_or_else(|| Mistake {
            column,
            reason: format!("{counted} copies: {COPIES_MAX} at most"),
        })?;
        Ok(Policy {
            copies,
            terms: draft.terms,
            differ: draft.differ,
        })
    }

    fn item(&mut self, draft: &mut Draft) -> Result<(), Mistake> {
        let Some(token) = self.peek() else {
            return Err(self.wrong_here("`copies(N)`, `N in ...` or `differ by ...` is missing"));
        };
        match token.text {
            "copies" => {
                self.next += 1;
                self.demand("(")?;
                let copies = self.count()?;
                self.demand(")")?;
                let twice = draft.copies.replace((token.column, copies)).is_some();
                refuse(twice, token, "`copies` is there twice")
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
                let count = self.count()?;
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
                format!("`{text}` is not `copies(N)`, `N in ...` or `differ by ...`"),
            )),
        }
    }

    fn count(&mut self) -> Result<u8, Mistake> {
        let token = self.word("a number of copies")?;
        let count = token.text.parse().ok();
        let count = count.filter(|count| (1..=COPIES_MAX).contains(count));
        count.ok_or_else(|| {
            let text = token.text;
            wrong(
                token,
                format!("`{text}` is not a number from 1 to {COPIES_MAX}"),
            )
        })
    }

    fn domain(&mut self) -> Result<Domain, Mistake> {
        let token = self.word("`server`, `rack` or `dc`")?;
        match token.text {
            "server" => Ok(Domain::Server),
            "rack" => Ok(Domain::Rack),
            "dc" => Ok(Domain::Datacentre),
            text => Err(wrong(
                token,
                format!("`{text}` is not `server`, `rack` or `dc`"),
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
            b',' | b'(' | b')' | b'=' => 1,
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
