//! `antler down`: unmounts and stops what `up` started; the data stays.

use crate::arguments::Down;
use crate::failure::Outcome;
use crate::layout::Layout;
use crate::out::say;
use crate::processes;
use crate::up::MOUNT;

/// Runs the command.
pub(crate) fn run(arguments: &Down) -> Outcome<()> {
    let layout = Layout::load(&arguments.dir)?;
    let mut units = layout.units();
    units.push(MOUNT);
    let count = units
        .iter()
        .filter(|unit| layout.running(**unit).is_some())
        .count();
    processes::stop_all(&layout, MOUNT, arguments.force)?;
    say!(
        "stopped {count} processes; `antler up --dir {}` brings everything back",
        arguments.dir.display()
    );
    Ok(())
}
