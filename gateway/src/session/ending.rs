//! How a link ends: shutdown, timeouts, errors, the peer's Goodbye. Whatever has no receipt by then is still owed, so an
//! end never loses anything.

use guantong_proto::v1;
use guantong_proto::v1::frame::Kind;

use super::types::{End, Output};
use super::{Phase, Session};

/// What is kept of the peer's words: an operator sees them.
const DETAIL_CHARS_MAX: usize = 500;

impl Session {
    /// Ends the link: no more batches go out or are taken in, those being ingested still get their receipts, within
    /// the drain timeout, then Goodbye.
    pub fn shutdown(&mut self, now_ms: u64, reason: v1::GoodbyeReason, detail: &str, retry_after_ms: u32) {
        match self.phase {
            Phase::Open => {
                for output in self.arrived.drain(..) {
                    if let Output::Ingest(batch) = output {
                        self.receiving.release(batch.batch_id);
                    }
                }
                self.receiving.forget_parts();
                self.sending.stop();
                self.goodbye = v1::Goodbye { reason: reason.into(), detail: detail.into(), retry_after_ms };
                let until_ms = now_ms.saturating_add(self.limits.drain_timeout_ms);
                self.phase = Phase::Draining { until_ms };
                self.finish_draining();
            }
            Phase::Draining { .. } | Phase::Closed => {}
            _ => self.close_with(reason, detail.into(), retry_after_ms),
        }
    }

    pub(super) fn finish_draining(&mut self) {
        if matches!(self.phase, Phase::Draining { .. }) && self.receiving.nothing_unreceipted() {
            self.close_drained();
        }
    }

    fn close_drained(&mut self) {
        let goodbye = std::mem::take(&mut self.goodbye);
        self.close_with(goodbye.reason(), goodbye.detail, goodbye.retry_after_ms);
    }

    /// When to call `handle_timeout` next, Unix milliseconds.
    pub fn next_timeout(&self) -> Option<u64> {
        match self.phase {
            Phase::AwaitingHello { until_ms }
            | Phase::AwaitingWelcome { until_ms }
            | Phase::Draining { until_ms } => Some(until_ms),
            Phase::Open => self.sending.receipt_due_ms(self.limits.receipt_timeout_ms),
            Phase::Deciding { .. } | Phase::Storing | Phase::Closed => None,
        }
    }

    /// Acts on what is due; does nothing if nothing is.
    pub fn handle_timeout(&mut self, now_ms: u64) {
        if self.next_timeout().is_none_or(|due_ms| due_ms > now_ms) {
            return;
        }
        let waited_for = match self.phase {
            Phase::Draining { .. } => return self.close_drained(),
            Phase::Open => format!("no receipt for {} s", self.limits.receipt_timeout_ms / 1_000),
            _ => format!("no greeting for {} s", self.limits.greeting_timeout_ms / 1_000),
        };
        self.close_with(v1::GoodbyeReason::Timeout, waited_for, 0);
    }

    pub(super) fn close_with(&mut self, reason: v1::GoodbyeReason, detail: String, retry_after_ms: u32) {
        self.arrived.clear();
        self.send(Kind::Goodbye(v1::Goodbye {
            reason: reason.into(),
            detail: detail.clone(),
            retry_after_ms,
        }));
        self.close(End { by_peer: false, reason, detail, retry_after_ms });
    }

    pub(super) fn close_by_peer(&mut self, goodbye: v1::Goodbye) {
        if self.phase == Phase::Storing {
            self.arrived.clear();
        }
        self.control.clear();
        let reason = goodbye.reason();
        let detail = goodbye.detail.chars().filter(|c| !c.is_control()).take(DETAIL_CHARS_MAX).collect();
        self.close(End { by_peer: true, reason, detail, retry_after_ms: goodbye.retry_after_ms });
    }

    fn close(&mut self, end: End) {
        self.phase = Phase::Closed;
        self.sending.stop();
        self.receiving.forget_parts();
        self.questions.forget();
        self.end = Some(end);
    }
}
