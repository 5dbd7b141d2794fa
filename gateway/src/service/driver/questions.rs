//! Questions over a link: those of this node go out and their answers are handed back, those of the other end are answered
//! beside the link. None of it may hold up batches.

use std::collections::HashMap;

use guantong_proto::v1;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::super::asking::Asking;
use super::super::links::{LinkKey, Question};
use super::Driver;
use crate::session::questions::NotAsked;

/// Questions and parts of answers that may wait to be taken by the link. Boxed, since an idle link has room for them too.
const WAITING_MAX: usize = 8;

/// What is under way on one link.
pub(super) struct Questions {
    /// Of this node, for the other end.
    asked: mpsc::Receiver<Box<Question>>,
    asker: mpsc::Sender<Box<Question>>,
    /// Whom the other end's answers go to.
    pending: HashMap<u64, mpsc::Sender<Box<v1::Answer>>>,
    /// Answers of this node, for the other end.
    parts: mpsc::Receiver<Box<v1::Answer>>,
    answerer: mpsc::Sender<Box<v1::Answer>>,
    /// Whoever works on them.
    answering: JoinSet<()>,
}

/// What is to go out.
pub(super) enum Said {
    Question(Box<Question>),
    Part(Box<v1::Answer>),
}

impl Questions {
    pub(super) fn new() -> Questions {
        let (asker, asked) = mpsc::channel(WAITING_MAX);
        let (answerer, parts) = mpsc::channel(WAITING_MAX);
        Questions { asked, asker, pending: HashMap::new(), parts, answerer, answering: JoinSet::new() }
    }

    /// Waits for the next that is to go out; parts of answers only where they are taken now.
    pub(super) async fn next(&mut self, takes_answers: bool) -> Said {
        tokio::select! {
            Some(question) = self.asked.recv() => Said::Question(question),
            Some(part) = self.parts.recv(), if takes_answers => Said::Part(part),
            else => std::future::pending().await,
        }
    }
}

impl Driver {
    /// The link is up: whoever wants to know something may ask.
    pub(super) fn begin_questions(&mut self, link: LinkKey) {
        self.links.takes_questions(link, self.questions.asker.clone());
    }

    pub(super) fn say(&mut self, said: Said) {
        match said {
            Said::Part(part) => {
                self.session.answer(*part);
            }
            Said::Question(question) => self.ask(*question),
        }
    }

    fn ask(&mut self, Question { ask, parts }: Question) {
        let (session, pending) = (&mut self.session, &mut self.questions.pending);
        // Nobody waits for these any longer.
        pending.retain(|ask_id, parts| {
            if parts.is_closed() {
                session.give_up(*ask_id);
            }
            !parts.is_closed()
        });
        match session.ask(ask) {
            Ok(ask_id) => drop(pending.insert(ask_id, parts)),
            // Dropped: the link ends.
            Err(NotAsked::NotOpen) => {}
            Err(error @ (NotAsked::Busy | NotAsked::TooLarge)) => {
                let (answer, reason) = (v1::NodeAnswer::Busy.into(), error.to_string());
                let refusal = v1::Answer { last: true, answer, reason, ..v1::Answer::default() };
                let _ = parts.try_send(Box::new(refusal));
            }
        }
    }

    /// A part of an answer came. Whoever does not read it in time, or not at all, gets no more.
    pub(super) fn peer_answers(&mut self, answer: v1::Answer) {
        let (ask_id, last) = (answer.ask_id, answer.last);
        let Some(parts) = self.questions.pending.get(&ask_id) else { return };
        let taken = parts.try_send(Box::new(answer)).is_ok();
        if last || !taken {
            self.questions.pending.remove(&ask_id);
            self.session.give_up(ask_id);
        }
    }

    /// The other end asks: the session has seen to it that these are few.
    pub(super) fn peer_asks(&mut self, ask: v1::Ask) {
        let Questions { answering, answerer, .. } = &mut self.questions;
        while answering.try_join_next().is_some() {}
        let asking = Asking::new(self.engine.clone(), self.links.clone());
        answering.spawn(asking.answer(self.role, self.peer_division, ask, answerer.clone()));
    }
}
