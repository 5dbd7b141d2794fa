//! What two ends state about what they share: checksums and claims. A checksum counts only while nothing is owed or under
//! way, so it is tied to where the link stood when its sums were read.

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

    /// Where the link stands while nothing is owed or under way either way, as far as this end knows. To be asked
    /// before the sums of a checksum are read.
    pub fn position(&self) -> Option<Position> {
        let still = self.phase == Phase::Open && self.sending.is_drained() && self.receiving.is_idle();
        still.then(|| Position {
            last_batch_sent: self.sending.last_id(),
            last_batch_received: self.receiving.last_id(),
        })
    }

    /// Sends sums that were read at `position`. False: the link has moved on, and they mean nothing.
    pub fn queue_checksum(
        &mut self,
        position: Position,
        sums: Vec<v1::FieldSum>,
        quarantined_count: u64,
    ) -> bool {
        let still = self.position() == Some(position);
        if still {
            let Position { last_batch_sent, last_batch_received } = position;
            let checksum = v1::Checksum {
                last_batch_sent,
                last_batch_received,
                sums,
                quarantined_count,
                ..v1::Checksum::default()
            };
            self.send(Kind::Checksum(checksum));
        }
        still
    }

    /// Whether the peer's sums may be compared with sums that were read here at `position`: both ends stood at the
    /// same batches, and this one still does.
    pub fn comparable(&self, position: Position, checksum: &v1::Checksum) -> bool {
        self.position() == Some(position)
            && checksum.last_batch_received == position.last_batch_sent
            && checksum.last_batch_sent == position.last_batch_received
    }
}
