//! `antler keygen`: the key of a new cluster.

use crate::arguments::Keygen;
use crate::failure::{OrFail, Outcome};
use antler_net::identity::Credential;

/// Runs the command.
pub(crate) fn run(arguments: &Keygen) -> Outcome<()> {
    let credential = Credential::generate();
    match &arguments.file {
        Some(file) => credential.store(file).or_fail()?,
        None => print!("{}", credential.to_text()),
    }
    Ok(())
}
