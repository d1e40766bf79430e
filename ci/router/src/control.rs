//! The control socket: one command a line, one line of answer, which starts with `ok`
//! or `error`.

use crate::forward::Router;
use crate::network::{Network, Path, milliseconds};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path as FilePath;
use std::sync::Arc;

/// The commands, for `--help` and for whoever mistypes one.
pub(crate) const COMMANDS: &str = "\
A and B are nodes, @SITES, or `all`; what is said of A and B holds both ways,
of `from A to B` one way.
cut A B | cut from A to B            nothing passes
loss PERCENT A B | ... from A to B   packets are lost
delay MS A B | ...                   instead of the usual delay
jitter MS A B | ...                  added at random, at most
rate KBYTES A B | ...                a second, 0 for no bound
heal                                 everything as at first
counts                               what became of packets
passed A B | from A to B             packets and bytes that went through";

/// Answers at `path` from a thread of its own, until the process ends.
pub(crate) fn serve(router: &Arc<Router>, path: &FilePath) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
    let router = Arc::clone(router);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A caller that goes away early harms only itself.
            let _ = converse(&router, stream);
        }
    });
    Ok(())
}

fn converse(router: &Router, mut stream: UnixStream) -> io::Result<()> {
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?;
        let answer = match router.with_network(|network| obey(network, &line)) {
            Ok(answer) => format!("ok {answer}\n"),
            Err(error) => format!("error {}\n", error.replace('\n', "; ")),
        };
        stream.write_all(answer.as_bytes())?;
    }
    Ok(())
}

/// Carries out one command; both answers are one line.
fn obey(network: &mut Network, line: &str) -> Result<String, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["heal"] => {
            network.heal();
            Ok("healed".to_owned())
        }
        ["counts"] => Ok(format!("{:?}", network.counts)),
        ["passed", ref whom @ ..] => passed(network, whom),
        ["cut", ref whom @ ..] => change(network, whom, |path| path.is_cut = true),
        [
            what @ ("loss" | "delay" | "jitter" | "rate"),
            number,
            ref whom @ ..,
        ] => {
            let amount = amount(what, number)?;
            change(network, whom, |path| set(path, what, amount))
        }
        _ => Err(format!("unknown command {line:?}; there are: {COMMANDS}")),
    }
}

/// A number that makes sense for `what`.
fn amount(what: &str, word: &str) -> Result<f64, String> {
    let most = if what == "loss" { 100.0 } else { 1e9 };
    let number: Option<f64> = word.parse().ok();
    number
        .filter(|number| (0.0..=most).contains(number))
        .ok_or_else(|| format!("{what} is a number from 0 to {most}, not {word:?}"))
}

fn set(path: &mut Path, what: &str, amount: f64) {
    match what {
        "loss" => path.loss = amount,
        "delay" => path.delay = milliseconds(amount),
        "jitter" => path.jitter = milliseconds(amount),
        _ => path.rate = amount as u64 * 1024,
    }
}

/// Whom a command is about, each by the nodes that its word names.
struct Between {
    from: Vec<usize>,
    to: Vec<usize>,
    both_ways: bool,
}

fn between(network: &Network, whom: &[&str]) -> Result<Between, String> {
    let (from, to, both_ways) = match *whom {
        ["from", from, "to", to] => (from, to, false),
        [one, other] => (one, other, true),
        _ => {
            return Err(format!(
                "expected A B or from A to B, not {:?}",
                whom.join(" ")
            ));
        }
    };
    Ok(Between {
        from: network.named(from)?,
        to: network.named(to)?,
        both_ways,
    })
}

/// Changes what holds between those that the words name.
fn change(
    network: &mut Network,
    whom: &[&str],
    change: impl Fn(&mut Path),
) -> Result<String, String> {
    let Between {
        from,
        to,
        both_ways,
    } = between(network, whom)?;
    network.change(&from, &to, &change);
    if both_ways {
        network.change(&to, &from, &change);
    }
    Ok(whom.join(" "))
}

/// What went between those that the words name, as `PACKETS packets, BYTES bytes`.
fn passed(network: &Network, whom: &[&str]) -> Result<String, String> {
    let whom = between(network, whom)?;
    let mut sum = network.passed(&whom.from, &whom.to);
    if whom.both_ways {
        let back = network.passed(&whom.to, &whom.from);
        sum.packets += back.packets;
        sum.bytes += back.bytes;
    }
    Ok(format!("{} packets, {} bytes", sum.packets, sum.bytes))
}

/// Sends `command` to the socket at `path` and returns the answer without its `ok`.
pub(crate) fn ask(path: &FilePath, command: &str) -> Result<String, String> {
    let describe = |error: io::Error| format!("{}: {error}", path.display());
    let mut stream = UnixStream::connect(path).map_err(describe)?;
    writeln!(stream, "{command}").map_err(describe)?;
    let mut answer = String::new();
    let mut reader = BufReader::new(stream);
    reader.read_line(&mut answer).map_err(describe)?;
    let answer = answer.trim_end();
    let good = answer.strip_prefix("ok ");
    good.map(str::to_owned).ok_or_else(|| answer.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Place, Spread};
    use std::net::Ipv4Addr;

    fn two() -> Network {
        let place = |name: &str, last| Place {
            name: name.into(),
            site: name.into(),
            address: Ipv4Addr::new(10, 0, 0, last),
        };
        let spread = Spread {
            between: 10.0,
            within: 0.0,
            jitter: 0.0,
        };
        Network::new(vec![place("a", 1), place("b", 2)], spread, 1)
    }

    #[test]
    fn commands_do_what_they_say() {
        let mut network = two();
        let mut packet = [0; 20];
        packet[0] = 0x45;
        packet[16..].copy_from_slice(&[10, 0, 0, 2]);
        let due = |network: &mut Network| {
            let routed = network.route(std::time::Duration::ZERO, 0, &packet);
            routed.map(|(due, _)| due.as_millis())
        };
        assert_eq!(due(&mut network), Some(10));
        obey(&mut network, "delay 30 a b").expect("known");
        assert_eq!(due(&mut network), Some(30));
        obey(&mut network, "cut from b to a").expect("known");
        assert_eq!(due(&mut network), Some(30));
        obey(&mut network, "cut @a all").expect("known");
        assert_eq!(due(&mut network), None);
        assert_eq!(obey(&mut network, "heal"), Ok("healed".to_owned()));
        let passed = |network: &mut Network, words: &str| obey(network, words).expect("known");
        assert_eq!(passed(&mut network, "passed a b"), "3 packets, 60 bytes");
        assert_eq!(
            passed(&mut network, "passed from b to a"),
            "0 packets, 0 bytes"
        );
        obey(&mut network, "loss 100 all all").expect("known");
        assert_eq!(due(&mut network), None);
    }

    #[test]
    fn mistakes_are_told() {
        let mut network = two();
        for line in [
            "",
            "cut a",
            "cut a c",
            "loss 101 a b",
            "delay x a b",
            "melt a b",
            "passed a",
        ] {
            assert!(obey(&mut network, line).is_err(), "{line:?}");
        }
    }
}
