//! Questions about one record: who may ask, whom it is passed on to, and what comes back from them. What is asked, and
//! what the answers come to, is each question's own.

use guantong_proto::v1;
use guantong_proto::v1::ask::Question;
use tokio::task::JoinSet;

use super::{Asking, Reach, Unanswered};
use crate::division::Division;
use crate::ingest::topology::Role;
use crate::record::{Record, RecordName, codec};
use crate::store::{Listed, StoreError};
use crate::whereabouts::{self, Asker};

/// Why a node cannot say something about a record.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum AboutError {
    /// Its store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A stored record.
    #[error("the stored record cannot be read: {0}")]
    Record(#[from] codec::CodecError),
    /// Who asks.
    #[error(
        "the record does not concern the division that asks, as far as is known here (该记录与查询方无关)"
    )]
    NotConcerned,
}

/// A record as this node has it.
pub(super) type Held = Option<(Listed, Record)>;

/// What is gathered about a record along the tree, by one sort of question.
pub(super) trait Gathered: Default + Send + 'static {
    /// The question; `record` is the record's name.
    fn question(record: String) -> Question;
    /// Takes in a part of an answer.
    fn take(&mut self, part: v1::Answer);
    /// As an answer, in pieces that are each as small as may be.
    fn pieces(self) -> Vec<v1::Answer>;
}

/// What came back from a peer.
pub(super) struct Heard<G> {
    pub(super) role: Role,
    pub(super) peer: Division,
    /// And whether there was more than is taken.
    pub(super) answered: Result<(G, bool), Unanswered>,
}

impl Asking {
    /// A record as this node has it.
    pub(super) async fn held(&self, name: &RecordName) -> Result<Held, AboutError> {
        let Some(listed) = self.engine.shared().store.find(name).await? else { return Ok(None) };
        let record = codec::decode(listed.state.clone())?;
        Ok(Some((listed, record)))
    }

    /// Asks everybody beyond who has to do with a record; not back to where the question came from.
    pub(super) async fn ask_about<G: Gathered>(
        &self,
        name: &RecordName,
        asker: Asker,
        reach: Reach,
    ) -> Result<Vec<Heard<G>>, AboutError> {
        let shared = self.engine.shared();
        let held = self.held(name).await?;
        let places = whereabouts::places(shared.schema.kind(name.kind), name, held.as_ref().map(|h| &h.1));
        if !whereabouts::may_ask(asker, &places) {
            return Err(AboutError::NotConcerned);
        }
        let record = name.display(&shared.schema).to_string();
        let mut under_way = JoinSet::new();
        for (role, peer) in whereabouts::onward(&shared.topology(), asker, &places).peers() {
            let (asking, question) = (self.clone(), G::question(record.clone()));
            under_way.spawn(async move {
                Heard { role, peer, answered: asking.beyond(role, peer, question, reach).await }
            });
        }
        let mut heard = Vec::new();
        while let Some(one) = under_way.join_next().await {
            heard.extend(one);
        }
        Ok(heard)
    }

    /// What a peer knows.
    async fn beyond<G: Gathered>(
        &self,
        role: Role,
        peer: Division,
        question: Question,
        reach: Reach,
    ) -> Result<(G, bool), Unanswered> {
        let mut parts = self.ask(role, peer, question, reach).await?;
        let mut gathered = G::default();
        while let Some(part) = parts.next().await? {
            gathered.take(part);
        }
        Ok((gathered, parts.truncated))
    }
}
