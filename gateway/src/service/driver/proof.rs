//! Proof of equality over a link: `comparing` decides, this reads what it asks for, sends what it says and puts what differs
//! into the outbox. Reading runs beside the link, so that no frame waits for it.

use std::collections::VecDeque;
use std::sync::Arc;

use guantong_proto::v1;
use tokio::sync::watch;

use super::{Done, Driver};
use crate::comparing::{
    self, Common, Comparing, Found, LinkProof, Noted, Pace, Read, Shares, Standing, Step, Sums, Unknown, View,
};
use crate::engine::Shared;
use crate::ingest::topology::{PeerId, Role};
use crate::proof;
use crate::record::{RecordName, codec};
use crate::session::Side;
use crate::store::StoreError;

/// The comparisons of a link that was greeted.
pub(super) struct Proving {
    comparing: Comparing,
    asked: watch::Receiver<u64>,
    /// What is to be stored, one after the other.
    proofs: VecDeque<(LinkProof, Noted)>,
    is_storing: bool,
}

/// Waits until somebody asks for a comparison; for ever, while the link was not greeted.
pub(super) async fn asked(proving: &mut Option<Proving>) {
    if let Some(proving) = proving
        && proving.asked.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

impl Driver {
    /// The link was greeted, with these rules of the peer.
    pub(super) fn begin_proving(&mut self, peer: PeerId, rules: Option<v1::RuleTable>) {
        let shared = self.engine.shared();
        let Some(route) = shared.route(peer) else { return };
        let side = if self.role == Role::Parent { Side::Child } else { Side::Parent };
        let common = Common::of(&shared.schema, &rules.unwrap_or_default());
        let pace = Pace::every(shared.environment.compare_ms);
        let asked = shared.asked_to_compare(peer);
        let comparing = Comparing::new(side, route.pair(), common, pace, shared.proof(peer), self.now_ms());
        let comparing = comparing.after_request(*asked.borrow());
        self.proving = Some(Proving { comparing, asked, proofs: VecDeque::new(), is_storing: false });
    }

    /// When the comparisons want to go on, Unix milliseconds.
    pub(super) fn next_proving(&self, now_ms: u64) -> Option<u64> {
        self.proving.as_ref().and_then(|proving| proving.comparing.next_timeout(now_ms))
    }

    /// Somebody asks for a comparison.
    pub(super) fn compare_now(&mut self) {
        let now_ms = self.now_ms();
        if let Some(proving) = &mut self.proving {
            let request = *proving.asked.borrow();
            proving.comparing.compare_now(now_ms, request);
        }
    }

    pub(super) fn peer_checksum(&mut self, checksum: v1::Checksum) {
        let now_ms = self.now_ms();
        if let Some(proving) = &mut self.proving {
            proving.comparing.handle_checksum(now_ms, checksum);
        }
    }

    pub(super) fn peer_probe(&mut self, probe: v1::Probe) {
        if let Some(proving) = &mut self.proving {
            proving.comparing.handle_probe(probe);
        }
    }

    pub(super) fn peer_finding(&mut self, finding: v1::Finding) {
        let now_ms = self.now_ms();
        if let Some(proving) = &mut self.proving {
            proving.comparing.handle_finding(now_ms, finding);
        }
    }

    fn view(&self) -> View {
        // Rows that have their receipts are owed until they are deleted.
        let drained = self.session.is_drained() && self.rows.is_empty();
        let wall_ms = (self.engine.shared().environment.now_ms)();
        View { now_ms: self.now_ms(), wall_ms, position: self.session.position(), drained }
    }

    /// The next step of the comparisons. False: there is none now.
    pub(super) fn prove_step(&mut self) -> bool {
        let view = self.view();
        let shared = self.engine.shared().clone();
        let (Some(proving), Some(peer)) = (&mut self.proving, self.peer) else { return false };
        let Some(step) = proving.comparing.poll(&shared.schema, view) else { return false };
        match step {
            Step::Checksum(position, checksum) => {
                self.session.queue_checksum(position, checksum);
            }
            Step::Probe(probe) => self.session.queue_probe(probe),
            Step::Finding(finding) => self.session.queue_finding(finding),
            Step::Hold(held) => self.session.hold(held),
            Step::Read(read) => {
                self.jobs.spawn(async move { Done::Found(find(&shared, peer, read).await) });
            }
            Step::Owe(names) => {
                let engine = self.engine.clone();
                self.jobs.spawn(async move { Done::Owed(engine.owe(peer, names).await) });
            }
            Step::Proof(proof, noted) => {
                shared.know_proof(peer, proof, proving.comparing.answered());
                proving.proofs.push_back((proof, noted));
                self.store_proof();
            }
        }
        true
    }

    /// Stores what is to be stored next.
    fn store_proof(&mut self) {
        let (Some(proving), Some(peer)) = (&mut self.proving, self.peer) else { return };
        if proving.is_storing {
            return;
        }
        let Some((proof, noted)) = proving.proofs.pop_front() else { return };
        proving.is_storing = true;
        let equal = matches!(noted, Noted::Equal { .. }) && proving.comparing.ends_recovery();
        let refused = proof.refused > 0;
        let engine = self.engine.clone();
        self.jobs.spawn(async move {
            let stored = engine.prove(peer, proof, noted).await;
            Done::Proved(match stored {
                Ok(()) if equal => engine.recovered(peer, refused).await,
                stored => stored,
            })
        });
    }

    pub(super) fn proved(&mut self) {
        if let Some(proving) = &mut self.proving {
            proving.is_storing = false;
        }
        self.store_proof();
    }

    /// What differs is in the outbox. The session must know before the comparisons go on.
    pub(super) fn owed(&mut self) {
        if let Some(wake) = &mut self.wake {
            let now = *wake.borrow_and_update();
            self.woken(now);
        }
        if let Some(proving) = &mut self.proving {
            proving.comparing.owed();
        }
    }

    pub(super) fn found(&mut self, found: Found) {
        let view = self.view();
        let shared = self.engine.shared().clone();
        if let Some(proving) = &mut self.proving {
            proving.comparing.found(&shared.schema, view, found);
        }
    }
}

/// Reads what a comparison wants.
async fn find(shared: &Arc<Shared>, peer: PeerId, read: Read) -> Found {
    let found = match read {
        Read::Standing { named } => standing(shared, peer, &named).await.map(Found::Standing),
        Read::Homes { kind } => shared.store.home_sums(peer, kind).await.map(|homes| match homes {
            Some(homes) => Found::Homes(homes.into_iter().collect()),
            None => Found::Failed,
        }),
        Read::Page { difference, kind, home, after_id } => {
            let page = shared.store.of_home(kind, home, &after_id, comparing::PAGE_RECORDS).await;
            page.map(|stored| {
                let record = |state| codec::decode(state).unwrap_or_default();
                let records = stored.iter().map(|s| (&s.name, record(s.state.clone())));
                Found::Page(comparing::page(&shared.schema, &difference, records))
            })
        }
    };
    found.unwrap_or_else(|error| {
        tracing::warn!(%error, "a comparison of a link could not read the store");
        Found::Failed
    })
}

async fn standing(
    shared: &Shared,
    peer: PeerId,
    named: &[RecordName],
) -> Result<Result<Standing, Unknown>, StoreError> {
    if !shared.is_counted() {
        return Ok(Err(Unknown::Counting));
    }
    let Some(route) = shared.route(peer) else { return Ok(Err(Unknown::Counting)) };
    let found = shared.store.link_standing(peer, named).await?;
    let Some(totals) = found.sums else { return Ok(Err(Unknown::Counting)) };
    let (Some(owed), Some(refused)) = (found.owed, found.refused) else {
        return Ok(Err(Unknown::TooMuchOwed));
    };
    let mut sums = Sums::default();
    totals.into_iter().for_each(|((kind, field), sum)| sums.add(kind, field, sum));
    let mut shares = Shares::new();
    for stored in found.records {
        // What cannot be read is not in the sums either.
        let Ok(record) = codec::decode(stored.state) else { continue };
        let share = proof::shared(route.schema, route.pair(), &stored.name, &record);
        shares.insert(stored.name, share);
    }
    let (owed, refused) = (owed.into_iter().collect(), refused.into_iter().collect());
    Ok(Ok(Standing { sums, owed, refused, shares }))
}
