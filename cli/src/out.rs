//! What a command says on its standard output. A reader that has seen enough (`antler status |
//! head -1`) is no error: what is said after that goes nowhere. Any other failure to write it
//! is told, since somebody relies on it.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

/// Writes to the standard output; ends the process with 1 when that fails, as with a full disk.
pub(crate) fn write(text: Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    let written = out.write_fmt(text).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("antler: the output can't be written: {error}");
            std::process::exit(1);
        }
        _ => {}
    }
}

/// A line on the standard output, as `println!` writes it.
macro_rules! say {
    () => { $crate::out::write(format_args!("\n")) };
    ($format:literal $($rest:tt)*) => {
        $crate::out::write(format_args!("{}\n", format_args!($format $($rest)*)))
    };
}

/// Text on the standard output, as `print!` writes it.
macro_rules! say_part {
    ($($text:tt)*) => { $crate::out::write(format_args!($($text)*)) };
}

pub(crate) use {say, say_part};
