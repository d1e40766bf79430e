//! `antler-router`: a router between network namespaces, for tests that need a
//! network with faults where the kernel has no netem. Test code.
//!
//! Each node is a namespace with a TUN device; every packet that a node sends comes
//! here and is lost, cut, or delivered after the delay of its ordered pair of nodes.
//! What holds for a pair can be changed at any time through a Unix socket. Packets of
//! one pair never overtake each other; bytes are never damaged.
//!
//! Owns nothing but the packets under way: the namespaces, the addresses and the
//! routes are made by who starts it.

mod control;
mod device;
mod forward;
mod network;

use crate::device::Node;
use crate::forward::Router;
use crate::network::{Network, Spread};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

#[derive(Debug, Parser)]
#[command(about = "Forwards packets between network namespaces, with delays, losses and cuts")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the devices and forward until killed. Needs CAP_NET_ADMIN and CAP_SYS_ADMIN.
    Run {
        /// Listen here for commands; the socket appears when every device is there.
        #[arg(long)]
        control: PathBuf,
        /// Seed of jitter and loss.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Milliseconds each way between nodes of different sites.
        #[arg(long, default_value_t = 10.0)]
        between: f64,
        /// Milliseconds each way within a site.
        #[arg(long, default_value_t = 0.1)]
        within: f64,
        /// Milliseconds that are added at random, at most.
        #[arg(long, default_value_t = 0.5)]
        jitter: f64,
        /// The device's name in each namespace.
        #[arg(long, default_value = "ant0")]
        device: String,
        /// A node: NAME=SITE,NAMESPACE,ADDRESS (repeatable).
        #[arg(long = "node", required = true)]
        nodes: Vec<Node>,
    },
    /// Send one command to the control socket of a running router.
    #[command(after_help = control::COMMANDS)]
    Control { socket: PathBuf, words: Vec<String> },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Control { socket, words } => {
            control::ask(&socket, &words.join(" ")).map(|answer| println!("{answer}"))
        }
        Command::Run {
            control,
            seed,
            between,
            within,
            jitter,
            device,
            nodes,
        } => {
            let spread = Spread {
                between,
                within,
                jitter,
            };
            let places = nodes.iter().map(|node| node.place.clone()).collect();
            run(
                &nodes,
                &device,
                Network::new(places, spread, seed),
                &control,
            )
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("antler-router: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(
    nodes: &[Node],
    device: &str,
    network: Network,
    socket: &std::path::Path,
) -> Result<(), String> {
    let devices = nodes
        .iter()
        .map(|node| {
            node.open(device)
                .map_err(|error| format!("{node}: {error}"))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let router = Arc::new(Router::new(network, devices));
    let threads = router.start();
    control::serve(&router, socket).map_err(|error| format!("{}: {error}", socket.display()))?;
    for thread in threads {
        thread.join().map_err(|_| "a thread panicked".to_owned())?;
    }
    Ok(())
}
