//! TOML with memory: every value knows its line, and every mistake is kept, so
//! that all of them can be told at once. Leaves to its parent what the keys mean.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Something wrong in a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistake {
    /// From 1.
    pub line: usize,
    /// What is wrong, and what is allowed.
    pub text: String,
}

/// Everything that is wrong in one file.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct Mistakes {
    /// Which file.
    pub path: PathBuf,
    /// In the order of lines; never empty.
    pub mistakes: Vec<Mistake>,
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, mistake) in self.mistakes.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(
                f,
                "{}:{}: {}",
                self.path.display(),
                mistake.line,
                mistake.text
            )?;
        }
        Ok(())
    }
}

/// A value and the line it stands on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) line: usize,
}

/// Collects mistakes over one file.
pub(super) struct Reader<'t> {
    path: &'t Path,
    text: &'t str,
    mistakes: Vec<Mistake>,
}

/// A table of the file and the keys that were asked of it.
pub(super) struct Section<'t> {
    name: String,
    line: usize,
    entries: &'t DeTable<'t>,
    known: Vec<&'static str>,
}

/// One of a list of texts and tables.
pub(super) enum Item<'t> {
    Text(Placed<String>),
    Table(Section<'t>),
}

impl<'t> Reader<'t> {
    /// Parses the text; what can't be parsed is a mistake already.
    pub(super) fn parse(path: &'t Path, text: &'t str) -> (Self, DeTable<'t>) {
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut reader = Self {
            path,
            text,
            mistakes: Vec::new(),
        };
        for error in errors {
            let line = reader.line(error.span().map_or(0, |span| span.start));
            reader.mistake(line, error.message());
        }
        (reader, table.into_inner())
    }

    pub(super) fn mistake(&mut self, line: usize, text: impl Into<String>) {
        self.mistakes.push(Mistake {
            line,
            text: text.into(),
        });
    }

    /// The checked value, if there was no mistake.
    pub(super) fn finish<T>(mut self, value: Option<T>) -> Result<T, Mistakes> {
        match value {
            Some(value) if self.mistakes.is_empty() => Ok(value),
            _ => {
                assert!(!self.mistakes.is_empty(), "what is missing was noted");
                self.mistakes.sort_by_key(|mistake| mistake.line);
                Err(Mistakes {
                    path: self.path.to_owned(),
                    mistakes: self.mistakes,
                })
            }
        }
    }

    fn line(&self, at: usize) -> usize {
        self.text[..at.min(self.text.len())].matches('\n').count() + 1
    }

    /// The whole file as a section.
    pub(super) fn top(table: &'t DeTable<'t>) -> Section<'t> {
        Section {
            name: String::new(),
            line: 1,
            entries: table,
            known: Vec::new(),
        }
    }

    /// The tables of `[[key]]`.
    pub(super) fn sections(&mut self, of: &mut Section<'t>, key: &'static str) -> Vec<Section<'t>> {
        let Some(found) = self.value(of, key) else {
            return Vec::new();
        };
        let line = self.line(found.span().start);
        let Some(items) = found.get_ref().as_array() else {
            self.mistake(line, format!("`{key}` must be tables: [[{key}]]"));
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in items.iter() {
            let line = self.line(item.span().start);
            match item.get_ref().as_table() {
                Some(entries) => sections.push(Section {
                    name: format!("[[{key}]]"),
                    line,
                    entries,
                    known: Vec::new(),
                }),
                None => self.mistake(line, format!("`{key}` must be tables: [[{key}]]")),
            }
        }
        sections
    }

    /// Every key of `[key]` with its text.
    pub(super) fn texts(
        &mut self,
        of: &mut Section<'t>,
        key: &'static str,
    ) -> Vec<(String, Placed<String>)> {
        let Some(found) = self.value(of, key) else {
            return Vec::new();
        };
        let line = self.line(found.span().start);
        let Some(entries) = found.get_ref().as_table() else {
            self.mistake(line, format!("`{key}` must be a table: [{key}]"));
            return Vec::new();
        };
        let mut texts = Vec::new();
        for (name, value) in entries.iter() {
            let line = self.line(value.span().start);
            let name = name.get_ref().to_string();
            match value.get_ref().as_str() {
                Some(text) => texts.push((
                    name,
                    Placed {
                        value: text.to_owned(),
                        line,
                    },
                )),
                None => self.mistake(line, format!("`{key}.{name}` must be a text in quotes")),
            }
        }
        texts
    }

    /// A text, if it is there.
    pub(super) fn text(
        &mut self,
        of: &mut Section<'t>,
        key: &'static str,
    ) -> Option<Placed<String>> {
        let found = self.value(of, key)?;
        let line = self.line(found.span().start);
        match found.get_ref().as_str() {
            Some(text) => Some(Placed {
                value: text.to_owned(),
                line,
            }),
            None => {
                self.mistake(line, format!("{} must be a text in quotes", of.key(key)));
                None
            }
        }
    }

    /// A text that must be there. `allowed` says what it is.
    pub(super) fn need_text(
        &mut self,
        of: &mut Section<'t>,
        key: &'static str,
        allowed: &str,
    ) -> Option<Placed<String>> {
        if !of.entries.contains_key(key) {
            of.known.push(key);
            let text = format!("{} is missing: {allowed}", of.key(key));
            self.mistake(of.line, text);
            return None;
        }
        self.text(of, key)
    }

    /// A list of texts that must be there and not be empty.
    pub(super) fn need_list(
        &mut self,
        of: &mut Section<'t>,
        key: &'static str,
        allowed: &str,
    ) -> Vec<Placed<String>> {
        let Some(found) = self.value(of, key) else {
            let text = format!("{} is missing: {allowed}", of.key(key));
            self.mistake(of.line, text);
            return Vec::new();
        };
        let line = self.line(found.span().start);
        let items = found.get_ref().as_array();
        let texts: Vec<_> = items
            .into_iter()
            .flat_map(|items| items.iter())
            .filter_map(|item| {
                let value = item.get_ref().as_str()?.to_owned();
                let line = self.line(item.span().start);
                Some(Placed { value, line })
            })
            .collect();
        if texts.is_empty() || items.is_none_or(|items| items.len() != texts.len()) {
            self.mistake(line, format!("{} must be {allowed}", of.key(key)));
        }
        texts
    }

    /// A list of texts and tables that must be there and not be empty.
    pub(super) fn need_items(
        &mut self,
        of: &mut Section<'t>,
        key: &'static str,
        allowed: &str,
    ) -> Vec<Item<'t>> {
        let Some(found) = self.value(of, key) else {
            let text = format!("{} is missing: {allowed}", of.key(key));
            self.mistake(of.line, text);
            return Vec::new();
        };
        let line = self.line(found.span().start);
        let list = found.get_ref().as_array();
        let list: Vec<_> = list.into_iter().flat_map(|list| list.iter()).collect();
        if list.is_empty() {
            self.mistake(line, format!("{} must be {allowed}", of.key(key)));
        }
        let mut items = Vec::new();
        for item in list {
            let line = self.line(item.span().start);
            let (text, table) = (item.get_ref().as_str(), item.get_ref().as_table());
            if let Some(text) = text {
                let value = text.to_owned();
                items.push(Item::Text(Placed { value, line }));
            } else if let Some(entries) = table {
                let (name, known) = (of.key(key), Vec::new());
                items.push(Item::Table(Section {
                    name,
                    line,
                    entries,
                    known,
                }));
            } else {
                self.mistake(line, format!("{} must be {allowed}", of.key(key)));
            }
        }
        items
    }

    /// `true` or `false`, if it is there.
    pub(super) fn flag(&mut self, of: &mut Section<'t>, key: &'static str) -> Option<bool> {
        let found = self.value(of, key)?;
        let line = self.line(found.span().start);
        let flag = match found.get_ref() {
            DeValue::Boolean(flag) => Some(*flag),
            _ => None,
        };
        if flag.is_none() {
            self.mistake(line, format!("{} must be true or false", of.key(key)));
        }
        flag
    }

    /// A whole number within a range, if it is there.
    pub(super) fn number(
        &mut self,
        of: &mut Section<'t>,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<Placed<u64>> {
        let found = self.value(of, key)?;
        let line = self.line(found.span().start);
        let parsed = match found.get_ref() {
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        match parsed.filter(|number| range.contains(number)) {
            Some(value) => Some(Placed { value, line }),
            None => {
                let text = format!(
                    "{} must be a whole number from {} to {}",
                    of.key(key),
                    range.start(),
                    range.end()
                );
                self.mistake(line, text);
                None
            }
        }
    }

    /// A number that must be there.
    pub(super) fn need_number(
        &mut self,
        of: &mut Section<'t>,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<Placed<u64>> {
        if of.entries.contains_key(key) {
            return self.number(of, key, range);
        }
        of.known.push(key);
        let (from, to) = range.into_inner();
        let text = format!(
            "{} is missing: a whole number from {from} to {to}",
            of.key(key)
        );
        self.mistake(of.line, text);
        None
    }

    /// Notes every key of the section that nobody asked for.
    pub(super) fn end(&mut self, section: &Section<'t>) {
        for (key, _) in section.entries.iter() {
            if !section.known.contains(&key.get_ref().as_ref()) {
                let line = self.line(key.span().start);
                let known = section.known.join(", ");
                let text = format!(
                    "unknown key {}; allowed here: {known}",
                    section.key(key.get_ref())
                );
                self.mistake(line, text);
            }
        }
    }

    fn value(
        &mut self,
        of: &mut Section<'t>,
        key: &'static str,
    ) -> Option<&'t Spanned<DeValue<'t>>> {
        of.known.push(key);
        of.entries.get(key)
    }
}

impl Section<'_> {
    pub(super) fn line(&self) -> usize {
        self.line
    }

    fn key(&self, key: &str) -> String {
        match self.name.as_str() {
            "" => format!("`{key}`"),
            name => format!("`{key}` of {name}"),
        }
    }
}
