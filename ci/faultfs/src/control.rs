//! The control socket: one command per line, one line of answer, which starts
//! with `ok` or `error`. Owns the commands; `rules` reads the rules.

use crate::filesystem::Layer;
use crate::rules::Rule;
use crate::tree::CutRequest;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

/// The commands, for `--help` and for whoever mistypes one.
pub(crate) const COMMANDS: &str = "\
forget [seed=N] [keep=PERCENT]   fail the power and come back at once
cut [seed=N] [keep=PERCENT]      fail the power and answer EIO until `restore`
restore                          end the dark
eio OPERATION PATTERN [percent=N] [times=N]
enospc OPERATION PATTERN [percent=N] [times=N]
delay MILLISECONDS OPERATION PATTERN [percent=N] [times=N]
lie sync PATTERN [percent=N] [times=N]
clear                            drop all rules
unsynced                         count what a cut could lose";

/// Answers at `path` from a thread of its own, until the process ends.
pub(crate) fn serve(layer: Arc<Layer>, path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A caller that goes away early harms only itself.
            let _ = converse(&layer, stream);
        }
    });
    Ok(())
}

fn converse(layer: &Layer, mut stream: UnixStream) -> io::Result<()> {
    for line in BufReader::new(stream.try_clone()?).lines() {
        let answer = match obey(layer, &line?) {
            Ok(answer) => format!("ok {answer}\n"),
            Err(error) => format!("error {}\n", error.replace('\n', "; ")),
        };
        stream.write_all(answer.as_bytes())?;
    }
    Ok(())
}

/// Runs one command; both answers are one line.
pub(crate) fn obey(layer: &Layer, line: &str) -> Result<String, String> {
    let mut words = line.split_whitespace();
    match words.next().unwrap_or_default() {
        "forget" => cut(layer, words, false),
        "cut" => cut(layer, words, true),
        "restore" => {
            layer.restore();
            Ok("lit".into())
        }
        "clear" => {
            layer.rules.clear();
            Ok("no rules".into())
        }
        "unsynced" => {
            let (files, names) = layer.unsynced();
            Ok(format!("files={files} names={names}"))
        }
        "eio" | "enospc" | "delay" | "lie" => {
            layer.rules.add(Rule::parse(line)?);
            Ok(line.to_owned())
        }
        other => Err(format!("unknown command {other:?}; there are: {COMMANDS}")),
    }
}

fn cut<'a>(
    layer: &Layer,
    words: impl Iterator<Item = &'a str>,
    stay_dark: bool,
) -> Result<String, String> {
    let mut asked = CutRequest::default();
    for word in words {
        let (key, value) = word
            .split_once('=')
            .ok_or_else(|| format!("expected seed=N or keep=PERCENT, not {word}"))?;
        let number: u64 = value.parse().map_err(|_| format!("not a number: {word}"))?;
        match key {
            "seed" => asked.seed = Some(number),
            "keep" if number <= 100 => asked.keep_percent = Some(number),
            _ => return Err(format!("expected seed=N or keep=0..100, not {word}")),
        }
    }
    let report = layer
        .cut(asked, stay_dark)
        .map_err(|error| format!("the cut failed half way: {error}"))?;
    eprintln!("{report}");
    Ok(report.to_string())
}

/// Sends `command` to the socket at `path` and returns the answer without its `ok`.
pub(crate) fn ask(path: &Path, command: &str) -> Result<String, String> {
    let describe = |error: io::Error| format!("{}: {error}", path.display());
    let mut stream = UnixStream::connect(path).map_err(describe)?;
    stream
        .write_all(format!("{command}\n").as_bytes())
        .map_err(describe)?;
    let mut answer = String::new();
    BufReader::new(stream)
        .read_line(&mut answer)
        .map_err(describe)?;
    match answer.trim_end().split_once(' ') {
        Some(("ok", rest)) => Ok(rest.to_owned()),
        _ => Err(answer.trim_end().to_owned()),
    }
}
