//! What two ends state about what they share: checksums, with what follows from them, and claims. A checksum counts only
//! while nothing is under way, so it is tied to where the link stood when its sums were read. What it says is `comparing`'s.

use guantong_proto::v1;
use guantong_proto::v1::frame::Kind;

use super::types::Position;
use super::{Phase, Session};

impl Session {
    /// Sends a claim, ahead of batches. Whether all that it speaks of has receipts is the caller's to know. False:
    /// the link is not open.
    pub fn queue_claim(&mut self, claim: v1::Claim) -> bool {
        let open = self.phase == Phase::Open;
        if open {
            let same =
                |f: &v1::Frame| matches!(&f.kind, Some(Kind::Claim(c)) if c.division == claim.division);
            self.control.retain(|frame| !same(frame));
            self.send(Kind::Claim(claim));
        }
        open
    }

    /// Where the link stands while nothing is under way either way, as far as this end knows; what is owed may still wait
    /// here. To be asked before the sums of a checksum are read.
    pub fn position(&self) -> Option<Position> {
        let still = self.phase == Phase::Open && self.sending.in_flight().1 == 0 && self.receiving.is_idle();
        still.then(|| Position {
            last_batch_sent: self.sending.last_id(),
            last_batch_received: self.receiving.last_id(),
        })
    }

    /// Nothing is owed in any lane, as far as the outbox was read, and all receipts are in.
    pub fn is_drained(&self) -> bool {
        self.phase == Phase::Open && self.sending.is_drained()
    }

    /// Begins no batch while this holds, so that the link comes to rest.
    pub fn hold(&mut self, held: bool) {
        self.sending.hold(held);
    }

    /// Sends sums that were read at a position, ahead of batches; without one, in any case. False: the link has moved
    /// on, and they mean nothing.
    pub fn queue_checksum(&mut self, position: Option<Position>, checksum: v1::Checksum) -> bool {
        let still = self.phase == Phase::Open && (position.is_none() || position == self.position());
        if still {
            self.send(Kind::Checksum(checksum));
        }
        still
    }

    /// Sends a probe, ahead of batches.
    pub fn queue_probe(&mut self, probe: v1::Probe) {
        if self.phase == Phase::Open {
            self.send(Kind::Probe(probe));
        }
    }

    /// Sends what a probe found, ahead of batches.
    pub fn queue_finding(&mut self, finding: v1::Finding) {
        if self.phase == Phase::Open {
            self.send(Kind::Finding(finding));
        }
    }
}
