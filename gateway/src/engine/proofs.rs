//! Whether both ends of links hold the same, as all of this process see it: what the links' comparisons say, what of it is
//! stored and audited, and who asks for a comparison now. It compares nothing itself.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use tokio::sync::watch;

use super::command::Command;
use super::task::Task;
use super::{Engine, EngineError, Shared};
use crate::audit::Event;
use crate::comparing::{LinkProof, Noted};
use crate::ingest::changes::{Changes, LinkChange, RecordKey};
use crate::ingest::topology::PeerId;
use crate::record::RecordName;

/// A link that stays equal is stored again after so long.
const STORED_EVERY_MS: u64 = 3_600_000;

/// What is known of links.
#[derive(Default)]
pub(super) struct Proofs {
    /// And up to which request for a comparison they were known since.
    known: RwLock<HashMap<PeerId, (LinkProof, u64)>>,
    /// As it was stored last.
    stored: Mutex<HashMap<PeerId, LinkProof>>,
    changed: watch::Sender<u64>,
    asked: Mutex<HashMap<PeerId, watch::Sender<u64>>>,
    /// What is kept of this store's own records was found to be what they say, since the process began.
    is_counted: AtomicBool,
    /// How often checksums of links were forgotten.
    forgotten: AtomicU64,
}

impl Shared {
    /// Whether both ends of a link hold the same.
    pub fn proof(&self, peer: PeerId) -> LinkProof {
        let known = self.proofs.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&peer).map_or_else(LinkProof::default, |known| known.0)
    }

    /// The last request for a comparison after which this end of the link was compared. No clock decides it: that can be
    /// set meanwhile.
    pub fn compared_for(&self, peer: PeerId) -> u64 {
        let known = self.proofs.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&peer).map_or(0, |known| known.1)
    }

    /// Changes whenever the proof of a link does. Register before reading, so that nothing is missed.
    pub fn proofs_changed(&self) -> watch::Receiver<u64> {
        self.proofs.changed.subscribe()
    }

    /// Asks a link to compare as soon as it can, and gives the number of the request: see `compared_for`.
    pub fn compare_now(&self, peer: PeerId) -> u64 {
        let mut asked = self.proofs.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = asked.entry(peer).or_default();
        asked.send_modify(|times| *times += 1);
        *asked.borrow()
    }

    /// Changes whenever somebody asks the link to compare.
    pub(crate) fn asked_to_compare(&self, peer: PeerId) -> watch::Receiver<u64> {
        let mut asked = self.proofs.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.entry(peer).or_default().subscribe()
    }

    /// Whether this store's own records were counted since the process began. Until then no link is said to be equal:
    /// checksums that were kept say nothing of a record that was lost since.
    pub fn is_counted(&self) -> bool {
        self.proofs.is_counted.load(Ordering::Acquire)
    }

    /// They were, and what was kept of them is right: links that waited for it compare now.
    pub(crate) fn note_counted(&self) {
        self.proofs.is_counted.store(true, Ordering::Release);
        let asked = self.proofs.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.values().for_each(|asked| asked.send_modify(|times| *times += 1));
    }

    /// How often checksums of links were forgotten, to be computed anew, since the process began.
    pub fn sums_forgotten(&self) -> u64 {
        self.proofs.forgotten.load(Ordering::Acquire)
    }

    pub(super) fn note_sums_forgotten(&self) {
        self.proofs.forgotten.fetch_add(1, Ordering::AcqRel);
    }

    fn stored_proof(&self, peer: PeerId) -> Option<LinkProof> {
        self.proofs.stored.lock().unwrap_or_else(PoisonError::into_inner).get(&peer).copied()
    }

    fn note_stored(&self, peer: PeerId, proof: LinkProof) {
        self.proofs.stored.lock().unwrap_or_else(PoisonError::into_inner).insert(peer, proof);
    }

    /// Takes over what a comparison says of a link, and which request it came after.
    pub(crate) fn know_proof(&self, peer: PeerId, proof: LinkProof, request: u64) {
        self.proofs.known.write().unwrap_or_else(PoisonError::into_inner).insert(peer, (proof, request));
        self.proofs.changed.send_modify(|times| *times += 1);
    }
}

impl Engine {
    /// Owes records to a peer, in the bulk lane; those that are not here are passed over.
    pub async fn owe(&self, peer: PeerId, names: Vec<RecordName>) -> Result<(), EngineError> {
        self.ask(|reply| Command::Owe(peer, names, reply)).await
    }

    /// Stores what a comparison says of a link, where that is news.
    pub async fn prove(&self, peer: PeerId, proof: LinkProof, noted: Noted) -> Result<(), EngineError> {
        let stored = self.shared.stored_proof(peer);
        let nothing = matches!(noted, Noted::Nothing | Noted::Equal { after_difference: false });
        if nothing && !is_worth_storing(stored.as_ref(), &proof) {
            return Ok(());
        }
        self.ask(|reply| Command::Prove(peer, proof, noted, reply)).await
    }
}

/// Not each time that a link is found equal again.
fn is_worth_storing(stored: Option<&LinkProof>, proof: &LinkProof) -> bool {
    let Some(stored) = stored else { return true };
    // Also after the clock was put back.
    let later =
        |now: Option<u64>, then: Option<u64>| now.unwrap_or(0).abs_diff(then.unwrap_or(0)) >= STORED_EVERY_MS;
    stored.state != proof.state || later(proof.compared_ms, stored.compared_ms)
}

impl Task {
    /// What the process before this one knew of the links.
    pub(super) async fn recall_proofs(&mut self) -> Result<(), EngineError> {
        for (peer, proof) in self.shared.store.proofs().await? {
            self.shared.know_proof(peer, proof, 0);
            self.shared.note_stored(peer, proof);
        }
        Ok(())
    }

    /// Owes records that differ.
    pub(super) async fn owe(&mut self, peer: PeerId, names: &[RecordName]) -> Result<(), EngineError> {
        if !self.serves(peer) {
            return Err(EngineError::Elsewhere);
        }
        let found = self.store.load(names).await?;
        let mut keys: Vec<RecordKey> = found.into_iter().flatten().map(|loaded| loaded.key).collect();
        keys.sort_unstable();
        if keys.is_empty() {
            return Ok(());
        }
        self.commit(&Changes::default(), &[LinkChange::Owe { peer, keys }]).await
    }

    /// Stores how a link stands, and notes what happened.
    pub(super) async fn prove(
        &mut self,
        id: PeerId,
        proof: LinkProof,
        noted: Noted,
    ) -> Result<(), EngineError> {
        let Some(peer) = self.peers.get(&id).map(|peer| peer.division) else { return Ok(()) };
        let event = match noted {
            Noted::Nothing | Noted::Equal { after_difference: false } => None,
            Noted::Equal { after_difference: true } => Some(Event::LinkVerified { peer }),
            Noted::Repaired(records) => Some(Event::LinkRepaired { peer, records }),
            Noted::Stays(records) => {
                tracing::error!(%peer, records, state = %proof.state, "a difference stays (差异未消除)");
                Some(Event::LinkDiffers { peer, records })
            }
        };
        let audit = event.into_iter().map(Into::into).collect();
        let changes = Changes { audit, ..Changes::default() };
        self.commit(&changes, &[LinkChange::Proof(id, proof)]).await?;
        self.shared.note_stored(id, proof);
        Ok(())
    }
}
