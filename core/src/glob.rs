//! Patterns of names, as shells have them (glob(7)), on bytes.
//!
//! `*` stands for any bytes, `?` for one byte, `[abc]`, `[a-z]` and `[!a-z]` for one of a set,
//! and `\` before a byte for that byte itself. What a pattern means is part of the replicated
//! state's meaning: it must not change.

/// Whether a pattern is well formed: every `[` has its `]` and no `\` ends it.
#[must_use]
pub fn is_pattern(pattern: &[u8]) -> bool {
    let mut rest = pattern;
    while let Some((_, left)) = token(rest) {
        rest = left;
    }
    rest.is_empty()
}

/// Whether a name is one that a pattern stands for, all of it. One that is not well formed
/// stands for none.
#[must_use]
pub fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut rest, mut left) = (pattern, name);
    // Behind the last `*`: what of the pattern, and from where in the name it is tried.
    let mut again: Option<(&[u8], &[u8])> = None;
    loop {
        match token(rest) {
            Some((Token::Any, behind)) => {
                again = Some((behind, left));
                rest = behind;
                continue;
            }
            Some((token, behind)) if left.first().is_some_and(|byte| token.takes(*byte)) => {
                (rest, left) = (behind, &left[1..]);
                continue;
            }
            None if rest.is_empty() && left.is_empty() => return true,
            _ => {}
        }
        // The last `*` stands for one byte more.
        match again {
            Some((behind, from)) if !from.is_empty() => {
                (rest, left) = (behind, &from[1..]);
                again = Some((behind, left));
            }
            _ => return false,
        }
    }
}

/// A piece of a pattern.
#[derive(Clone, Copy)]
enum Token<'p> {
    Any,
    One,
    Byte(u8),
    /// One of these, or none of them.
    Set {
        set: &'p [u8],
        is_in: bool,
    },
}

impl Token<'_> {
    fn takes(self, byte: u8) -> bool {
        match self {
            Self::Any | Self::One => true,
            Self::Byte(wanted) => byte == wanted,
            Self::Set { set, is_in } => contains(set, byte) == is_in,
        }
    }
}

/// The first piece of a pattern and what follows; `None` at its end, or where it is not well
/// formed.
fn token(pattern: &[u8]) -> Option<(Token<'_>, &[u8])> {
    match pattern {
        [] | [b'\\'] => None,
        [b'*', rest @ ..] => Some((Token::Any, rest)),
        [b'?', rest @ ..] => Some((Token::One, rest)),
        [b'\\', byte, rest @ ..] => Some((Token::Byte(*byte), rest)),
        [b'[', rest @ ..] => {
            let (is_in, rest) = match rest {
                [b'!', rest @ ..] => (false, rest),
                _ => (true, rest),
            };
            // A `]` that comes first is one of the set.
            let end = rest.iter().skip(1).position(|byte| *byte == b']')? + 1;
            let (set, rest) = (&rest[..end], &rest[end + 1..]);
            Some((Token::Set { set, is_in }, rest))
        }
        [byte, rest @ ..] => Some((Token::Byte(*byte), rest)),
    }
}

fn contains(mut set: &[u8], byte: u8) -> bool {
    loop {
        set = match set {
            [] => return false,
            [from, b'-', to, ..] if (from..=to).contains(&&byte) => return true,
            [_, b'-', _, rest @ ..] => rest,
            [one, ..] if *one == byte => return true,
            [_, rest @ ..] => rest,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_stand_for_names_as_in_a_shell() {
        for (pattern, names, others) in [
            (
                "*.tmp",
                &["a.tmp", ".tmp", "a.b.tmp"][..],
                &["a.tmpx", "tmp", "a.tm"][..],
            ),
            ("*", &["", "anything"], &[]),
            ("a?c", &["abc", "a?c"], &["ac", "abbc"]),
            ("[abc]*", &["a", "bx"], &["", "d", "xa"]),
            ("[!a-c]", &["d", "-"], &["a", "b", "c", "dd"]),
            ("[a-c-]", &["a", "-", "c"], &["d"]),
            ("[]x]", &["]", "x"], &["a"]),
            ("\\*", &["*"], &["a", "\\*"]),
            ("*a*b*", &["ab", "xaxbx", "aab"], &["ba", "a", ""]),
            ("log-[0-9][0-9]", &["log-07"], &["log-7", "log-x7"]),
            ("", &[""], &["a"]),
        ] {
            assert!(is_pattern(pattern.as_bytes()), "{pattern}");
            for name in names {
                assert!(
                    matches(pattern.as_bytes(), name.as_bytes()),
                    "{pattern} {name}"
                );
            }
            for name in others {
                assert!(
                    !matches(pattern.as_bytes(), name.as_bytes()),
                    "{pattern} {name}"
                );
            }
        }
        for wrong in ["[", "[]", "a[bc", "\\", "[!]", "x\\"] {
            assert!(!is_pattern(wrong.as_bytes()), "{wrong}");
            assert!(!matches(wrong.as_bytes(), wrong.as_bytes()), "{wrong}");
        }
    }

    /// The same by the definition, trying everything.
    fn defined(pattern: &[u8], name: &[u8]) -> bool {
        match token(pattern) {
            None => pattern.is_empty() && name.is_empty(),
            Some((Token::Any, rest)) => (0..=name.len()).any(|at| defined(rest, &name[at..])),
            Some((one, rest)) => {
                let takes = name.first().is_some_and(|byte| one.takes(*byte));
                takes && defined(rest, &name[1..])
            }
        }
    }

    proptest! {
        #[test]
        fn a_pattern_matches_as_its_definition_says(
            pattern in "[ab*?\\[\\]\\\\!-]{0,9}",
            name in "[ab\\]!-]{0,9}",
        ) {
            let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
            if is_pattern(pattern) {
                prop_assert_eq!(matches(pattern, name), defined(pattern, name));
            } else {
                prop_assert!(!matches(pattern, name));
            }
        }
    }
}
