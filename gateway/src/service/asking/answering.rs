//! Answering the other end of a link: in parts, and at once where the question is not for it.

use guantong_proto::v1;
use guantong_proto::v1::ask::Question;
use prost::Message;
use tokio::sync::mpsc;

use super::about::{AboutError, Gathered};
use super::{Asking, Reach};
use crate::division::Division;
use crate::ingest::topology::Role;
use crate::record::RecordName;

/// A part is sent when it has grown to this size: frames stay small.
const PART_BYTES: usize = 12 * 1024;

/// Where parts go; the link numbers them.
pub(super) type Out = mpsc::Sender<Box<v1::Answer>>;

impl Asking {
    /// Answers a question that came over the link to `peer`. Its last part is always sent, unless the link is gone.
    pub(in super::super) async fn answer(self, role: Role, peer: Division, ask: v1::Ask, out: Out) {
        let reach = Reach::of(&ask);
        let mut last = v1::Answer { ask_id: ask.ask_id, last: true, ..v1::Answer::default() };
        let to = (ask.ask_id, &out);
        let asker = Some((role, peer));
        let refused = match ask.question {
            Some(Question::Where(question)) => {
                let located = async |name: RecordName| self.locate(&name, asker, reach).await;
                self.answer_about(&question.record, located, to).await
            }
            Some(Question::Erasure(question)) => {
                let erasures = async |name: RecordName| self.erasures(&name, asker, reach).await;
                self.answer_about(&question.record, erasures, to).await
            }
            Some(Question::Verify(_)) if role == Role::Parent => {
                self.answer_verify(reach, to).await;
                None
            }
            Some(Question::Verify(_)) => {
                Some((v1::NodeAnswer::Refused, "only a node above may ask this (仅上级可查询)".to_owned()))
            }
            None => {
                let reason = "this node's program does not know the question (本节点程序版本不支持该查询)";
                Some((v1::NodeAnswer::Refused, reason.to_owned()))
            }
        };
        if let Some((answer, reason)) = refused {
            (last.answer, last.reason) = (answer.into(), reason);
        }
        let _ = out.send(Box::new(last)).await;
    }

    /// Answers what is asked about a record, or says why not.
    async fn answer_about<G: Gathered>(
        &self,
        record: &str,
        gather: impl AsyncFnOnce(RecordName) -> Result<G, AboutError>,
        (ask_id, out): (u64, &Out),
    ) -> Option<(v1::NodeAnswer, String)> {
        let name = match self.engine.name(record) {
            Ok(name) => name,
            Err(error) => return Some((v1::NodeAnswer::Refused, error.to_string())),
        };
        match gather(name).await {
            Ok(gathered) => {
                for part in parts(ask_id, gathered) {
                    if out.send(Box::new(part)).await.is_err() {
                        break;
                    }
                }
                None
            }
            Err(error @ AboutError::NotConcerned) => Some((v1::NodeAnswer::Refused, error.to_string())),
            Err(error) => Some((v1::NodeAnswer::Failed, error.to_string())),
        }
    }

    /// What the nodes of this scope say, as it comes.
    async fn answer_verify(&self, reach: Reach, (ask_id, out): (u64, &Out)) {
        let mut nodes = self.verify(self.children(), true, reach);
        while let Some(node) = nodes.recv().await {
            let part = v1::Answer { ask_id, nodes: vec![node], ..v1::Answer::default() };
            if out.send(Box::new(part)).await.is_err() {
                break;
            }
        }
    }
}

/// An answer, in as few parts as are small enough.
fn parts(ask_id: u64, gathered: impl Gathered) -> Vec<v1::Answer> {
    let mut parts: Vec<v1::Answer> = Vec::new();
    let mut bytes = 0;
    for piece in gathered.pieces() {
        let more = piece.encoded_len();
        match parts.last_mut().filter(|_| bytes + more <= PART_BYTES) {
            Some(part) => {
                part.places.extend(piece.places);
                part.links.extend(piece.links);
                part.erasures.extend(piece.erasures);
                bytes += more;
            }
            None => {
                parts.push(v1::Answer { ask_id, ..piece });
                bytes = more;
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::super::{Erased, Located};
    use super::*;

    #[test]
    fn a_long_answer_goes_in_small_parts_and_none_is_left_out() {
        let place = |n: u64| v1::RecordPlace {
            division: n.to_string(),
            reason: "x".repeat(500),
            ..Default::default()
        };
        let link = |n: u64| v1::RecordLink { child_division: n.to_string(), ..Default::default() };
        let located = Located {
            places: (0..100).map(place).collect(),
            links: (0..100).map(link).collect(),
            ..Located::default()
        };
        let (places, links) = (located.places.clone(), located.links.clone());
        let parts = parts(7, located);
        assert!(parts.len() > 3 && parts.iter().all(|part| part.ask_id == 7 && !part.last));
        assert!(parts.iter().all(|part| part.encoded_len() < PART_BYTES + 1_024));
        assert!(parts.iter().filter(|part| part.shared.is_some()).count() == 1);
        assert_eq!(parts.iter().flat_map(|part| part.places.clone()).collect::<Vec<_>>(), places);
        assert_eq!(parts.iter().flat_map(|part| part.links.clone()).collect::<Vec<_>>(), links);

        let place = |n: u64| v1::ErasurePlace {
            division: n.to_string(),
            reason: "x".repeat(500),
            ..Default::default()
        };
        let erased = Erased { places: (0..100).map(place).collect(), ..Erased::default() };
        let places = erased.places.clone();
        let parts = super::parts(7, erased);
        assert!(parts.len() > 3 && parts.iter().all(|part| part.encoded_len() < PART_BYTES + 1_024));
        assert_eq!(parts.iter().flat_map(|part| part.erasures.clone()).collect::<Vec<_>>(), places);
    }
}
