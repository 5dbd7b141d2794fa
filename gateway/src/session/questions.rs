//! Questions over a link, and the answers to them: both ends may ask, a bounded number at once. It knows numbers and
//! sizes only; what is asked and answered is the caller's. A question must never hold up batches or end a link: what
//! goes beyond the bounds is left without an answer.

use std::collections::BTreeSet;

use guantong_proto::v1;
use guantong_proto::v1::frame::Kind;
use prost::Message;

use super::types::Output;
use super::{Phase, Session};

/// Questions under way each way.
pub const QUESTIONS_MAX: usize = 16;
/// The largest question.
pub const ASK_BYTES_MAX: usize = 4 * 1024;
/// The largest part of an answer.
pub const ANSWER_PART_BYTES_MAX: usize = 64 * 1024;
/// Frames that may wait before any batch while parts of answers are still taken: what is answered is made as it goes out.
const WAITING_FRAMES_MAX: usize = 8;

/// Why a question does not go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAsked {
    /// The link is not open, or ends.
    #[error("the link is not open")]
    NotOpen,
    /// So many are under way already.
    #[error("{QUESTIONS_MAX} questions are under way on this link already")]
    Busy,
    /// It is no question that would be answered.
    #[error("the question has more than {ASK_BYTES_MAX} bytes")]
    TooLarge,
}

/// What is under way.
#[derive(Default)]
pub(super) struct Questions {
    last_id: u64,
    /// Ours, without the last part of an answer.
    asked: BTreeSet<u64>,
    /// The peer's, likewise.
    answering: BTreeSet<u64>,
}

impl Questions {
    pub(super) fn is_idle(&self) -> bool {
        self.asked.is_empty() && self.answering.is_empty()
    }

    pub(super) fn forget(&mut self) {
        *self = Questions { last_id: self.last_id, ..Questions::default() };
    }
}

impl Session {
    /// Sends a question, ahead of batches, and gives its number. `give_up` it when no answer is waited for any longer.
    ///
    /// # Errors
    /// It does not go out.
    pub fn ask(&mut self, ask: v1::Ask) -> Result<u64, NotAsked> {
        if self.phase != Phase::Open {
            return Err(NotAsked::NotOpen);
        }
        if self.questions.asked.len() >= QUESTIONS_MAX {
            return Err(NotAsked::Busy);
        }
        let ask_id = self.questions.last_id + 1;
        let ask = v1::Ask { ask_id, ..ask };
        if ask.encoded_len() > ASK_BYTES_MAX {
            return Err(NotAsked::TooLarge);
        }
        self.questions.last_id = ask_id;
        self.questions.asked.insert(ask_id);
        self.send(Kind::Ask(ask));
        Ok(ask_id)
    }

    /// The answer is not waited for any longer; what still comes of it is left aside.
    pub fn give_up(&mut self, ask_id: u64) {
        self.questions.asked.remove(&ask_id);
    }

    /// Whether parts of answers are taken now. Otherwise they are when some frames have gone out.
    pub fn takes_answers(&self) -> bool {
        self.control.len() < WAITING_FRAMES_MAX
    }

    /// Sends a part of an answer, ahead of batches. False: it is not waited for, or too large.
    pub fn answer(&mut self, answer: v1::Answer) -> bool {
        let expected = self.phase == Phase::Open && self.questions.answering.contains(&answer.ask_id);
        let fits = answer.encoded_len() <= ANSWER_PART_BYTES_MAX;
        if expected && answer.last {
            self.questions.answering.remove(&answer.ask_id);
        }
        if expected && fits {
            self.send(Kind::Answer(answer));
        }
        expected && fits
    }

    pub(super) fn peer_asks(&mut self, ask: v1::Ask) {
        let room = self.questions.answering.len() < QUESTIONS_MAX && ask.encoded_len() <= ASK_BYTES_MAX;
        if room && self.questions.answering.insert(ask.ask_id) {
            self.arrived.push_back(Output::PeerAsks(ask));
        }
    }

    pub(super) fn peer_answers(&mut self, answer: v1::Answer) {
        let waited_for = self.questions.asked.contains(&answer.ask_id);
        if answer.last {
            self.questions.asked.remove(&answer.ask_id);
        }
        if waited_for && answer.encoded_len() <= ANSWER_PART_BYTES_MAX {
            self.arrived.push_back(Output::PeerAnswers(answer));
        }
    }
}
