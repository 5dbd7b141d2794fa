//! What follows a difference: the child leads the descent, the parent answers, and both owe what differs.

use super::answering::Answering;
use super::descent::Move;
use super::{Comparing, Found, Noted, PROBE_ANSWER_MS, ProofState, Purpose, Step};
use crate::schema::Schema;
use crate::session::Side;
use guantong_proto::v1;

impl Comparing {
    /// The next step of the descent.
    pub(super) fn descend(&mut self, schema: &Schema, now_ms: u64) {
        let Some(descent) = &mut self.descent else { return };
        match descent.next(schema) {
            None if self.probe_until_ms <= now_ms => self.end_descent(now_ms, false),
            None => {}
            Some(Move::Read(read)) => self.read(Purpose::Descent, read),
            Some(Move::Probe(probe)) => {
                self.probe_until_ms = now_ms.saturating_add(PROBE_ANSWER_MS);
                self.steps.push_back(Step::Probe(probe));
            }
            Some(Move::Owe(names)) => {
                self.owing += 1;
                self.steps.push_back(Step::Owe(names));
            }
            Some(Move::Done(whole)) => self.end_descent(now_ms, whole),
        }
    }

    pub(super) fn descent_found(&mut self, schema: &Schema, now_ms: u64, found: Found) {
        let Some(descent) = &mut self.descent else { return };
        match found {
            Found::Homes(kept) => descent.homes(kept),
            Found::Page(page) => descent.page(schema, page),
            Found::Standing(_) | Found::Failed => self.end_descent(now_ms, false),
        }
    }

    /// It has been down everywhere, or gives up. What was found is owed; then the ends compare anew.
    pub(super) fn end_descent(&mut self, now_ms: u64, whole: bool) {
        let Some(descent) = self.descent.take() else { return };
        let found = descent.found;
        self.repaired += found;
        if found > 0 {
            self.due_ms = now_ms;
            // The rest of very many is looked for at once.
            self.next_descent_ms = if whole { now_ms.saturating_add(self.pace.interval_ms) } else { now_ms };
        } else {
            // It moved on meanwhile, or the other end did not find it.
            self.due_ms = now_ms.saturating_add(self.next_retry_ms());
            self.next_descent_ms = self.due_ms;
        }
        let noted = if found > 0 { Noted::Repaired(found) } else { Noted::Nothing };
        let stays = matches!(self.proof.state, ProofState::Differs { stays: true, .. });
        self.tell(ProofState::Differs { records: self.repaired, stays }, now_ms, noted);
    }

    /// A probe of the child: only of a difference that this end found too, and not without end.
    pub(super) fn take_probe(&mut self, schema: &Schema, now_ms: u64, probe: v1::Probe) {
        let refusal = Answering::refusal(&probe);
        let known = self.difference.clone().filter(|known| known.comparison == probe.comparison);
        let known = known.filter(|_| self.side == Side::Parent && self.probes_left > 0);
        match known.and_then(|known| Answering::new(schema, known, probe)) {
            Some(answering) => {
                self.probes_left -= 1;
                self.answering = Some(answering);
                self.answer_probe(now_ms);
            }
            None => self.steps.push_back(Step::Finding(refusal)),
        }
    }

    /// The next step of the answer to a probe. What differs is owed before the child hears of it.
    pub(super) fn answer_probe(&mut self, now_ms: u64) {
        let Some(answering) = &mut self.answering else { return };
        if let Some(read) = answering.next() {
            return self.read(Purpose::Answering, read);
        }
        let owe = std::mem::take(&mut answering.owe);
        if !owe.is_empty() {
            self.owing += 1;
            self.steps.push_back(Step::Owe(owe));
            return;
        }
        let Some(answering) = self.answering.take() else { return };
        let records = answering.records_found();
        self.probes_left = self.probes_left.saturating_sub(answering.cost_beyond());
        self.repaired += records;
        self.untold += records;
        if let ProofState::Differs { stays, .. } = self.proof.state {
            self.tell(ProofState::Differs { records: self.repaired, stays }, now_ms, Noted::Nothing);
        }
        self.steps.push_back(Step::Finding(answering.into_finding()));
    }

    pub(super) fn answering_found(&mut self, found: Found) {
        match (&mut self.answering, found) {
            (Some(answering), Found::Homes(kept)) => answering.homes(kept),
            (Some(answering), Found::Page(page)) => answering.page(page),
            (answering, _) => {
                let refusal = answering.take().map(|answering| v1::Finding {
                    refused: true,
                    differing: Vec::new(),
                    ..answering.into_finding()
                });
                self.steps.extend(refusal.map(Step::Finding));
            }
        }
    }
}
