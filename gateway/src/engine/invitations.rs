//! Invitations of new nodes. They are kept in the store only: each use is judged by what is there at that moment.

use super::command::Command;
use super::{Engine, EngineError};
use crate::ingest::changes::LinkChange;
use crate::invitation::{Fate, Invitation};

impl Engine {
    /// Keeps a new invitation.
    pub async fn invite(&self, new: Invitation) -> Result<(), EngineError> {
        self.ask(|reply| Command::Invitation(Box::new(LinkChange::Invite(new)), reply)).await
    }

    /// Notes what became of an open invitation. `false`: it is open no more, so nothing was noted.
    pub async fn close_invitation(&self, id: u64, fate: Fate) -> Result<bool, EngineError> {
        let close = LinkChange::Invited { id, fate };
        match self.ask(|reply| Command::Invitation(Box::new(close), reply)).await {
            Ok(()) => Ok(true),
            Err(error) if error.is_stale() => Ok(false),
            Err(error) => Err(error),
        }
    }
}
