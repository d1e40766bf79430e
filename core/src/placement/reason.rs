//! Why a policy can't be met by the servers that there are: for logs and operators.
//!
//! Owns the words alone; whether it can be met is `slots`' to say.

use super::class::{Force, Policy, Term};
use super::label::Labels;
use super::slots::fill;

/// What of a policy these servers can't meet, one line for each cause; empty when they
/// meet all of it, soft terms included.
#[must_use]
pub fn unmet(policy: &Policy, servers: &[&Labels]) -> Vec<String> {
    let best = fill(policy, servers);
    let soft = policy.terms.iter().filter(|term| term.force == Force::Soft);
    let soft: u8 = soft.map(|term| term.count).sum();
    if (best.filled, best.soft) == (policy.copies, soft) {
        return Vec::new();
    }
    let mut told: Vec<String> = policy
        .terms
        .iter()
        .filter_map(|term| lone(policy, term, servers))
        .collect();
    if told.is_empty() && servers.len() < usize::from(policy.copies) {
        let (have, wanted) = (servers.len(), policy.copies);
        told.push(format!("{have} of {wanted} servers are there"));
    }
    if told.is_empty() {
        let (have, wanted) = (best.filled, policy.copies);
        told.push(match have == wanted {
            true => "the soft terms can't all hold together".to_owned(),
            false => format!("the terms leave room for {have} of {wanted} copies together"),
        });
    }
    told
}

/// A term that can't be met even if it stood alone.
fn lone(policy: &Policy, term: &Term, servers: &[&Labels]) -> Option<String> {
    let alone = Policy {
        copies: term.count,
        terms: vec![Term {
            force: Force::Hard,
            ..term.clone()
        }],
        differ: policy.differ,
        stripe: None,
    };
    let have = fill(&alone, servers).filled;
    (have < term.count).then(|| format!("`{term}`: {have} of {} copies have a place", term.count))
}
