//! Who is calling, as the node found it in the certificate or on the local socket.

use tonic::{Extensions, Status};

use super::status;
use crate::division::Division;
use crate::engine::Shared;
use crate::grant::Grant;

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

impl Caller {
    /// For the audit log: the path of a certificate's identity, or the local user.
    pub fn account(&self) -> String {
        match &self.who {
            Who::Local => self.address.clone(),
            Who::Node(division) => format!("node/{division}"),
            Who::Operator(name) => format!("operator/{name}"),
            Who::Partner(name) => format!("partner/{name}"),
        }
    }

    /// For whoever asks later who did it.
    pub(super) fn name(&self) -> String {
        match &self.who {
            Who::Local => self.address.clone(),
            Who::Node(division) => format!("node {division}"),
            Who::Operator(name) => format!("operator {name}"),
            Who::Partner(name) => format!("partner {name}"),
        }
    }
}

/// What the caller may see and write now: local programs and operators everything, partners what was granted to them.
/// Nodes exchange records over links only.
pub(super) fn granted(shared: &Shared, extensions: &Extensions) -> Result<Grant, Status> {
    match extensions.get::<Caller>().map(|caller| &caller.who) {
        Some(Who::Local | Who::Operator(_)) => Ok(Grant::everything(shared.own())),
        Some(Who::Partner(name)) => shared.grant(name).ok_or_else(|| {
            status::not_allowed(format!(
                "the partner `{name}` has no grant at this node; its operator gives one with `guantong grant set` \
                 (该合作方尚未授权)"
            ))
        }),
        Some(Who::Node(_)) => {
            Err(status::not_allowed("a node's certificate is for links; use one of a partner or operator"))
        }
        None => Err(status::not_allowed("the caller is not known")),
    }
}

/// The partner who calls, if it is one.
pub(super) fn partner(extensions: &Extensions) -> Option<&str> {
    match extensions.get::<Caller>().map(|caller| &caller.who) {
        Some(Who::Partner(name)) => Some(name),
        _ => None,
    }
}

/// From where the call comes.
pub(super) fn address(extensions: &Extensions) -> String {
    extensions.get::<Caller>().map(|caller| caller.address.clone()).unwrap_or_default()
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
