//! Quantities of a scenario: a value, or a range from which each seed draws one.
//!
//! Written as an integer or a text: `4`, `"2..4"`, `"1.5s"`, `"10ms..2s"`,
//! `"4KiB..1MiB"`; both ends of a range belong to it.

use antler_core::rng::Rng;
use serde::de::value::{SeqAccessDeserializer, StrDeserializer};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::marker::PhantomData;

/// An inclusive range to draw from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// The least.
    pub low: u64,
    /// The most.
    pub high: u64,
}

impl Range {
    /// The range of one value.
    #[must_use]
    pub const fn only(value: u64) -> Self {
        Self {
            low: value,
            high: value,
        }
    }

    /// Draws a value.
    pub fn draw(self, rng: &mut Rng) -> u64 {
        rng.between(self.low, self.high)
    }
}

/// What a text means.
pub trait Unit {
    /// What is allowed, for messages.
    const WHAT: &'static str;
    /// Reads one value; `None` if it is not one.
    fn parse(text: &str) -> Option<u64>;
}

/// A plain number.
#[derive(Clone, Copy, Debug)]
pub struct Plain;
/// Nanoseconds, written with a unit.
#[derive(Clone, Copy, Debug)]
pub struct Time;
/// Bytes, written with a unit.
#[derive(Clone, Copy, Debug)]
pub struct Size;

impl Unit for Plain {
    const WHAT: &'static str = "a number or a range like \"2..4\"";
    fn parse(text: &str) -> Option<u64> {
        text.trim().parse().ok()
    }
}

impl Unit for Time {
    const WHAT: &'static str =
        "a duration like \"5s\" or \"0.1ms\" (us, ms, s, min, h, d), or a range of two";
    fn parse(text: &str) -> Option<u64> {
        let units = [
            ("us", 1_000),
            ("ms", 1_000_000),
            ("min", 60_000_000_000),
            ("s", 1_000_000_000),
            ("h", 3_600_000_000_000),
            ("d", 86_400_000_000_000),
        ];
        with_unit(text, &units)
    }
}

impl Unit for Size {
    const WHAT: &'static str = "a size like \"64KiB\" (B, KiB, MiB, GiB, TiB), or a range of two";
    fn parse(text: &str) -> Option<u64> {
        let units = [
            ("KiB", 1 << 10),
            ("MiB", 1 << 20),
            ("GiB", 1 << 30),
            ("TiB", 1 << 40),
            ("B", 1),
        ];
        with_unit(text, &units)
    }
}

/// Reads a decimal number with at most six decimals and one of the units.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let (number, scale) = units
        .iter()
        .find_map(|(unit, scale)| Some((text.strip_suffix(unit)?.trim_end(), *scale)))?;
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    if decimals.len() > 6 {
        return None;
    }
    let micros: u64 = format!("{decimals:0<6}").parse().ok()?;
    let whole: u64 = whole.parse().ok()?;
    let parts = u128::from(micros) * u128::from(scale) / 1_000_000;
    let parts = u64::try_from(parts).ok()?;
    whole.checked_mul(scale)?.checked_add(parts)
}

/// A quantity of a scenario in a unit.
pub struct Draw<U> {
    /// What to draw from.
    pub range: Range,
    unit: PhantomData<U>,
}

/// A number.
pub type Count = Draw<Plain>;
/// A duration in nanoseconds.
pub type Span = Draw<Time>;
/// A number of bytes.
pub type Bytes = Draw<Size>;

impl<U> Draw<U> {
    /// Always this value.
    #[must_use]
    pub const fn only(value: u64) -> Self {
        Self::between(value, value)
    }

    /// A value of this range.
    #[must_use]
    pub const fn between(low: u64, high: u64) -> Self {
        Self {
            range: Range { low, high },
            unit: PhantomData,
        }
    }

    /// Draws a value.
    pub fn draw(self, rng: &mut Rng) -> u64 {
        self.range.draw(rng)
    }
}

impl<U> Clone for Draw<U> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<U> Copy for Draw<U> {}

impl<U> fmt::Debug for Draw<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.range.low, self.range.high)
    }
}

impl<'de, U: Unit> Deserialize<'de> for Draw<U> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DrawVisitor(PhantomData))
    }
}

struct DrawVisitor<U>(PhantomData<U>);

impl<U: Unit> Visitor<'_> for DrawVisitor<U> {
    type Value = Draw<U>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(U::WHAT)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Draw<U>, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Draw<U>, E> {
        let (low, high) = text.split_once("..").unwrap_or((text, text));
        match (U::parse(low), U::parse(high)) {
            (Some(low), Some(high)) if low <= high => Ok(Draw::between(low, high)),
            (Some(_), Some(_)) => Err(E::custom(format!("the range {text:?} is empty"))),
            _ => Err(E::custom(format!("{text:?} is not {}", U::WHAT))),
        }
    }
}

/// One of several words, from which each seed draws; written as a text or a list.
#[derive(Clone, Debug)]
pub struct Choice<T>(Vec<T>);

impl<T> Choice<T> {
    /// Always this one.
    #[must_use]
    pub fn only(value: T) -> Self {
        Self(vec![value])
    }
}

impl<T: Copy> Choice<T> {
    /// Draws one; nothing is drawn where there is no choice.
    pub fn draw(&self, rng: &mut Rng) -> T {
        match self.0.as_slice() {
            [only] => *only,
            several => several[rng.below(several.len() as u64) as usize],
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Choice<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ChoiceVisitor(PhantomData))
    }
}

struct ChoiceVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ChoiceVisitor<T> {
    type Value = Choice<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a word, or a list of words")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Choice<T>, E> {
        T::deserialize(StrDeserializer::new(text)).map(Choice::only)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, words: A) -> Result<Choice<T>, A::Error> {
        let words = Vec::deserialize(SeqAccessDeserializer::new(words))?;
        match words.is_empty() {
            true => Err(A::Error::custom("there is nothing to choose from")),
            false => Ok(Choice(words)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn values_and_ranges_are_read_with_their_units() {
        let read = |text: &str| DrawVisitor::<Time>(PhantomData).visit_str::<toml::de::Error>(text);
        assert_eq!(read("0.1ms").expect("valid").range, Range::only(100_000));
        let range = read("10ms..2s").expect("valid").range;
        assert_eq!((range.low, range.high), (10_000_000, 2_000_000_000));
        for wrong in ["5", "s", "2s..1s", "1.2.3s", "-1s", "1w"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let words = |text| toml::from_str::<BTreeMap<String, Choice<bool>>>(text);
        assert!(words("x = []").is_err() && words("x = [true, false]").is_ok());
        assert_eq!(Time::parse("2h"), Some(7_200_000_000_000));
        assert_eq!(Time::parse("0.5d"), Some(43_200_000_000_000));
        assert_eq!(Size::parse("4KiB"), Some(4096));
        assert_eq!(Plain::parse("12"), Some(12));
    }
}
