//! Grants of partners: kept in memory beside the store, so that each call is judged by the grant of that moment.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use super::command::Command;
use super::task::Task;
use super::{Engine, EngineError, Shared};
use crate::audit::Event;
use crate::grant::{Grant, Kinds, Level};
use crate::ingest::changes::{Changes, GrantRow, LinkChange};
use crate::store::StoreError;

/// All grants, by the partners' names.
pub(super) type Grants = BTreeMap<String, GrantRow>;

impl Shared {
    /// The grants in force now.
    pub fn grants(&self) -> Arc<Grants> {
        self.grants.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a partner may now; `None`: nothing.
    pub fn grant(&self, partner: &str) -> Option<Grant> {
        self.grants().get(partner).map(|row| row.grant.clone())
    }

    /// Reads the grants from the store.
    pub(super) async fn load_grants(&self) -> Result<(), StoreError> {
        let grants = self.store.grants().await?;
        let grants = grants.into_iter().map(|row| (row.partner.clone(), row)).collect();
        *self.grants.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(grants);
        Ok(())
    }
}

impl Task {
    /// Stores a change of grants; when it returns, it is in force.
    pub(super) async fn change_grants(&mut self, change: LinkChange) -> Result<(), EngineError> {
        let audit = noted(&change).into_iter().map(Into::into).collect();
        self.commit(&Changes { audit, ..Changes::default() }, &[change]).await?;
        Ok(self.shared.load_grants().await?)
    }
}

/// What a change of grants is in the audit log.
fn noted(change: &LinkChange) -> Option<Event> {
    match change {
        LinkChange::Grant(GrantRow { partner, grant, granted_by, .. }) => Some(Event::GrantSet {
            partner: partner.clone(),
            scope: grant.scope,
            kinds: kinds(grant.kinds),
            level: match grant.level {
                Level::Aggregates => "aggregates",
                Level::Read => "read",
                Level::Write => "write",
            },
            personal: grant.personal,
            units: grant.units.codes().map(str::to_owned).collect(),
            by: granted_by.clone(),
            rate: grant.rate.map(|rate| rate.to_string()).unwrap_or_default(),
        }),
        LinkChange::Revoke(partner) => Some(Event::GrantRemoved { partner: partner.clone() }),
        _ => None,
    }
}

/// Their numbers; empty: every kind.
fn kinds(kinds: Kinds) -> Vec<u32> {
    let each = (0..u64::BITS).filter(|kind| kinds.bits() >> kind & 1 == 1);
    if kinds == Kinds::ALL { Vec::new() } else { each.collect() }
}

impl Engine {
    /// Gives a partner a grant in place of the one it has. Afterwards it is in force.
    pub async fn set_grant(&self, grant: GrantRow) -> Result<(), EngineError> {
        self.ask(|reply| Command::Grant(grant, reply)).await
    }

    /// Takes a partner's grant away.
    pub async fn revoke_grant(&self, partner: &str) -> Result<(), EngineError> {
        self.ask(|reply| Command::Revoke(partner.to_owned(), reply)).await
    }
}
