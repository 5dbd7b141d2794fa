//! Answering the other end of a link: in parts, and at once where the question is not for it.

use guantong_proto::v1;
use guantong_proto::v1::ask::Question;
use prost::Message;
use tokio::sync::mpsc;

use super::{Asking, LocateError, Located, Reach};
use crate::division::Division;
use crate::ingest::topology::Role;

/// A part is sent when it has grown to this size: frames stay small.
const PART_BYTES: usize = 12 * 1024;

/// Where parts go; the link numbers them.
pub(super) type Out = mpsc::Sender<Box<v1::Answer>>;

impl Asking {
    /// Answers a question that came over the link to `peer`. Its last part is always sent, unless the link is gone.
    pub(in super::super) async fn answer(self, role: Role, peer: Division, ask: v1::Ask, out: Out) {
        let reach = Reach::of(&ask);
        let mut last = v1::Answer { ask_id: ask.ask_id, last: true, ..v1::Answer::default() };
        let refused = match ask.question {
            Some(Question::Where(question)) => {
                self.answer_where(role, peer, &question.record, reach, (ask.ask_id, &out)).await
            }
            Some(Question::Verify(_)) if role == Role::Parent => {
                self.answer_verify(reach, (ask.ask_id, &out)).await;
                None
            }
            Some(Question::Verify(_)) => {
                Some((v1::NodeAnswer::Refused, "only a node above may ask this (仅上级可查询)".to_owned()))
            }
            Some(Question::Erasure(_)) | None => {
                let reason = "this node's program does not know the question (本节点程序版本不支持该查询)";
                Some((v1::NodeAnswer::Refused, reason.to_owned()))
            }
        };
        if let Some((answer, reason)) = refused {
            (last.answer, last.reason) = (answer.into(), reason);
        }
        let _ = out.send(Box::new(last)).await;
    }

    async fn answer_where(
        &self,
        role: Role,
        peer: Division,
        record: &str,
        reach: Reach,
        (ask_id, out): (u64, &Out),
    ) -> Option<(v1::NodeAnswer, String)> {
        let name = match self.engine.name(record) {
            Ok(name) => name,
            Err(error) => return Some((v1::NodeAnswer::Refused, error.to_string())),
        };
        match self.locate(&name, Some((role, peer)), reach).await {
            Ok(located) => {
                for part in parts(ask_id, located) {
                    if out.send(Box::new(part)).await.is_err() {
                        break;
                    }
                }
                None
            }
            Err(error @ LocateError::NotConcerned) => Some((v1::NodeAnswer::Refused, error.to_string())),
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

/// An answer, cut into parts.
fn parts(ask_id: u64, located: Located) -> Vec<v1::Answer> {
    let Located { places, links, shared, .. } = located;
    let mut parts = vec![v1::Answer { ask_id, shared: Some(shared), ..v1::Answer::default() }];
    let mut bytes = 0;
    let mut part_for = |more: usize, parts: &mut Vec<v1::Answer>| {
        bytes += more;
        if bytes > PART_BYTES {
            bytes = more;
            parts.push(v1::Answer { ask_id, ..v1::Answer::default() });
        }
        parts.len() - 1
    };
    for place in places {
        let at = part_for(place.encoded_len(), &mut parts);
        parts[at].places.push(place);
    }
    for link in links {
        let at = part_for(link.encoded_len(), &mut parts);
        parts[at].links.push(link);
    }
    parts
}

#[cfg(test)]
mod tests {
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
    }
}
