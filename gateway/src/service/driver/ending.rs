//! How a link ends: with words for the operator, and with its own last words heard.

use std::time::Duration;

use guantong_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tonic::Status;

use super::{Driver, Frames, LinkEnd};
use crate::audit::{self, Event};
use crate::ingest::topology::Role;
use crate::session::End;

/// How long the last words of a link may take to be heard.
const LAST_WORDS_MAX: Duration = Duration::from_secs(2);

impl Driver {
    /// A link that was greeted is over, for the audit log.
    pub(super) fn note_end(&self, end: &End) {
        self.engine.audit(Event::LinkDown {
            peer: self.peer_division,
            by: if end.by_peer { audit::Side::Peer } else { audit::Side::Own },
            reason: end.reason,
            sent: self.session.stats().sent_records,
            received: self.received_records,
        });
    }

    /// What was said last still goes out. The end that dialled waits until the other one has read it and ends the stream
    /// too: letting go of a call takes back what it has not sent yet.
    pub(super) async fn last_words(&mut self, mut frames: Frames) {
        let (none, _) = mpsc::channel(1);
        let out = std::mem::replace(&mut self.out, none);
        let (waiting, dialled) = (self.waiting.take(), self.role == Role::Parent);
        let heard = async move {
            if let Some(frame) = waiting {
                let _ = out.send(frame).await;
            }
            drop(out);
            while dialled && frames.next().await.is_some_and(|frame| frame.is_ok()) {}
        };
        let _ = tokio::time::timeout(LAST_WORDS_MAX, heard).await;
    }

    /// The stream itself failed: with the line, or at a frame that is too large or no frame at all. Whoever sent that
    /// is told, if anybody is there to hear it.
    pub(super) async fn unreadable(&mut self, status: &Status) -> End {
        let end = broken(status);
        let detail = format!("a frame could not be read: {}", status.message());
        self.session.shutdown(self.now_ms(), v1::GoodbyeReason::ProtocolError, &detail, 0);
        self.pump().await;
        end
    }
}

/// What a refused call says.
pub(super) fn refused(status: &Status) -> LinkEnd {
    use tonic_types::StatusExt;
    let retry = status.get_error_details().retry_info().and_then(|r| r.retry_delay);
    let retry_after_ms = retry.map(|d| d.as_millis() as u64);
    LinkEnd { reason: status.message().to_owned(), retry_after_ms, was_up: false }
}

pub(super) fn ended(detail: &str) -> End {
    End { by_peer: false, reason: v1::GoodbyeReason::Unspecified, detail: detail.into(), retry_after_ms: 0 }
}

pub(super) fn broken(status: &Status) -> End {
    let end = refused(status);
    End {
        retry_after_ms: end.retry_after_ms.unwrap_or(0) as u32,
        ..ended(&format!("the line broke: {}", end.reason))
    }
}
