//! Whether both ends of each link hold the same: a small row for each peer.

use super::sql::{Args, Sql, int, maybe};
use super::{Store, StoreError};
use crate::comparing::{LinkProof, ProofState, Unknown};
use crate::ingest::topology::PeerId;

const EQUAL: i64 = 0;
const DIFFERS: i64 = 20;
const STAYS: i64 = 21;

/// Stores what is known of a link in place of what was.
pub(super) async fn put(sql: &mut Sql<'_>, peer: PeerId, proof: &LinkProof) -> Result<(), StoreError> {
    let put =
        "INSERT INTO link_proof (peer, state, records, since_ms, compared_ms, equal_ms, left_out, refused)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (peer) DO UPDATE SET state = excluded.state, records = excluded.records,
            since_ms = excluded.since_ms, compared_ms = excluded.compared_ms, equal_ms = excluded.equal_ms,
            left_out = excluded.left_out, refused = excluded.refused";
    let (state, records) = match proof.state {
        ProofState::Equal => (EQUAL, 0),
        ProofState::Unknown(why) => {
            (Unknown::ALL.iter().find(|known| known.1 == why).map_or(1, |known| known.0), 0)
        }
        ProofState::Differs { records, stays: false } => (DIFFERS, records),
        ProofState::Differs { records, stays: true } => (STAYS, records),
    };
    let mut args = Args::ints(&[peer.0, state, records as i64, proof.since_ms as i64]);
    args.push_maybe(proof.compared_ms.map(|ms| ms as i64));
    args.push_maybe(proof.equal_ms.map(|ms| ms as i64));
    sql.run(put, args.int(proof.left_out as i64).int(proof.refused as i64)).await.map(|_| ())
}

impl Store {
    /// What is stored of each link, by peer.
    pub async fn proofs(&self) -> Result<Vec<(PeerId, LinkProof)>, StoreError> {
        let list = "SELECT peer, state, records, since_ms, compared_ms, equal_ms, left_out, refused
            FROM link_proof ORDER BY peer";
        let rows = self.reader().await?.sql().rows(list, Args::new()).await?;
        let proof = |row| {
            let records = int(row, 2)? as u64;
            let state = match int(row, 1)? {
                EQUAL => ProofState::Equal,
                DIFFERS => ProofState::Differs { records, stays: false },
                STAYS => ProofState::Differs { records, stays: true },
                why => {
                    let known = Unknown::ALL.iter().find(|known| known.0 == why);
                    ProofState::Unknown(known.map_or(Unknown::NeverCompared, |known| known.1))
                }
            };
            let proof = LinkProof {
                state,
                since_ms: int(row, 3)? as u64,
                compared_ms: maybe(row, 4)?.map(|ms| ms as u64),
                equal_ms: maybe(row, 5)?.map(|ms| ms as u64),
                left_out: int(row, 6)? as u64,
                refused: int(row, 7)? as u64,
            };
            Ok((PeerId(int(row, 0)?), proof))
        };
        rows.iter().map(proof).collect()
    }
}
