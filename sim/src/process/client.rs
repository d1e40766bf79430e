//! A mount: the client machine, asked by the simulated programs.

use super::{Act, Moment, Other, Stimulus, drive, input};
use antler_core::client::Client;
use antler_core::machine::Input;

pub(crate) struct ClientProcess {
    pub(crate) machine: Client,
}

impl ClientProcess {
    pub(super) fn handle(&mut self, at: Moment, stimulus: Stimulus, acts: &mut Vec<Act>) {
        let input = match stimulus {
            Stimulus::Ask(request) => Some(Input::Request(*request)),
            other => input(other, || None),
        };
        let Some(input) = input else { return };
        drive(
            &mut self.machine,
            at.local,
            input,
            acts,
            |other, acts| match other {
                Other::Answer(answer) => acts.push(Act::Answer(answer)),
                Other::Operate(operation) => match operation {},
            },
        );
    }
}
