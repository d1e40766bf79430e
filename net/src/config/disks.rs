//! The disks of a chunkserver: each a folder, or a table of a folder and what is ordered
//! of it. Leaves what the orders mean to `antler_core::chunk::rules`.

use super::beside;
use super::reader::{Item, Placed, Reader, Section};
use antler_core::chunk::rules::{Amount, DiskRules};
use std::path::{Path, PathBuf};

/// What stays free on a disk of which the file does not say it.
const KEEP_FREE: Amount = Amount::Percent(1);
const ALLOWED: &str = "a list of folders, one per disk; or of tables { path, keep_free, limit, \
                       drain }";
const AMOUNT: &str = "a size like \"10GiB\" (B, KiB, MiB, GiB, TiB), or a share of the disk \
                      like \"5%\"";

/// One disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskSettings {
    /// Its folder.
    pub folder: PathBuf,
    /// What is ordered of it.
    pub rules: DiskRules,
}

/// Reads `disks`.
pub(super) fn read<'t>(
    reader: &mut Reader<'t>,
    top: &mut Section<'t>,
    path: &Path,
) -> Vec<DiskSettings> {
    let mut disks: Vec<DiskSettings> = Vec::new();
    for item in reader.need_items(top, "disks", ALLOWED) {
        let Some((folder, rules)) = disk(reader, item) else {
            continue;
        };
        let settings = DiskSettings {
            folder: beside(path, &folder.value),
            rules,
        };
        if disks.iter().any(|other| other.folder == settings.folder) {
            let text = format!("disk {:?} is listed twice", folder.value);
            reader.mistake(folder.line, text);
        }
        disks.push(settings);
    }
    disks
}

fn disk<'t>(reader: &mut Reader<'t>, item: Item<'t>) -> Option<(Placed<String>, DiskRules)> {
    let mut rules = DiskRules {
        keep_free: Some(KEEP_FREE),
        ..DiskRules::default()
    };
    let mut table = match item {
        Item::Text(folder) => return Some((folder, rules)),
        Item::Table(table) => table,
    };
    let folder = reader.need_text(&mut table, "path", "the folder of the disk");
    if let Some(amount) = amount(reader, &mut table, "keep_free", 0..=99) {
        rules.keep_free = Some(amount);
    }
    rules.limit = amount(reader, &mut table, "limit", 1..=100);
    rules.drain = reader.flag(&mut table, "drain").unwrap_or(false);
    reader.end(&table);
    folder.map(|folder| (folder, rules))
}

/// A size or a share, the share between these percents.
fn amount<'t>(
    reader: &mut Reader<'t>,
    table: &mut Section<'t>,
    key: &'static str,
    percents: std::ops::RangeInclusive<u8>,
) -> Option<Amount> {
    let told = reader.text(table, key)?;
    let found = match told.value.strip_suffix('%') {
        Some(percent) => {
            let percent = percent.parse().ok();
            let fits = percent.filter(|percent| percents.contains(percent));
            fits.map(Amount::Percent)
        }
        None => super::size(&told.value).map(Amount::Bytes),
    };
    if found.is_none() {
        let (least, most) = (percents.start(), percents.end());
        let text = format!(
            "`{key}` is {:?}, but must be {AMOUNT}, from {least}% to {most}%",
            told.value
        );
        reader.mistake(told.line, text);
    }
    found
}
