//! `antler keygen`: the key of a new cluster.

use crate::arguments::Keygen;
use crate::failure::{OrFail, Outcome};
use crate::out::say_part;
use antler_net::identity::Credential;

/// Runs the command.
pub(crate) fn run(arguments: &Keygen) -> Outcome<()> {
    let credential = Credential::generate();
    match &arguments.file {
        Some(file) => credential.store(file).or_fail()?,
        None => say_part!("{}", credential.to_text()),
    }
    Ok(())
}
