//! Who is calling, as the node found it in the certificate or on the local socket.

use tonic::{Extensions, Status};

use super::status;
use crate::division::Division;

/// Put into the extensions of every request by the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Who.
    pub who: Who,
    /// From where, for operators.
    pub address: String,
}

/// The kinds of callers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// Through the local socket, which the operating system guards.
    Local,
    /// Another node, by the division of its certificate.
    Node(Division),
    /// A person with an operator certificate.
    Operator(String),
    /// A partner. Without a grant it may call nothing.
    Partner(String),
}

/// The caller, if it may use this node's records: local programs and operators.
pub(super) fn operator(extensions: &Extensions) -> Result<&Caller, Status> {
    match extensions.get::<Caller>() {
        Some(caller) if matches!(caller.who, Who::Local | Who::Operator(_)) => Ok(caller),
        Some(_) => {
            Err(status::not_allowed("this certificate has no grant for this call; ask the node's operator"))
        }
        None => Err(status::not_allowed("the caller is not known")),
    }
}

/// The division of a node that wants to link.
pub(super) fn node(extensions: &Extensions) -> Result<(Division, String), Status> {
    match extensions.get::<Caller>() {
        Some(Caller { who: Who::Node(division), address }) => Ok((*division, address.clone())),
        _ => Err(status::not_allowed("only a node certificate can link; use `guantong pki issue node`")),
    }
}
