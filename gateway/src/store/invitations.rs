//! Invitations of new nodes. A code is used once, whichever gateway of a database it is given to.

use super::sql::{Args, Row, Sql, blob, code, division, int, text};
use super::{Store, StoreError};
use crate::invitation::{Fate, Invitation};

const LATEST_FIRST: &str = "SELECT secret_hash, id, division, hosts, created_ms, created_by, expire_ms, fate, \
     fate_ms, key_hash, answer FROM invitation WHERE (created_ms, id) < (?, ?) ORDER BY created_ms DESC, id DESC LIMIT ?";
const BY_HASH: &str = "SELECT secret_hash, id, division, hosts, created_ms, created_by, expire_ms, fate, fate_ms, \
     key_hash, answer FROM invitation WHERE secret_hash = ?";
const BY_ID: &str = "SELECT secret_hash, id, division, hosts, created_ms, created_by, expire_ms, fate, fate_ms, \
     key_hash, answer FROM invitation WHERE id = ?";

/// Keeps a new invitation.
pub(super) async fn put(sql: &mut Sql<'_>, new: &Invitation) -> Result<(), StoreError> {
    let put =
        "INSERT INTO invitation (secret_hash, id, division, hosts, created_ms, created_by, expire_ms, fate,
            fate_ms, key_hash, answer)
        VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0, ?, ?) ON CONFLICT (secret_hash) DO NOTHING";
    let args = Args::new().blob(&new.secret_hash).int(new.id as i64).int(code(new.division));
    let args = args.text(&new.hosts.join(" ")).int(new.created_ms as i64).text(&new.created_by);
    sql.run(put, args.int(new.expire_ms as i64).blob(&[]).blob(&[])).await.map(|_| ())
}

/// Notes what became of an open invitation. Something else did meanwhile: [`StoreError::Stale`].
pub(super) async fn decide(sql: &mut Sql<'_>, id: u64, fate: &Fate) -> Result<(), StoreError> {
    let nothing = (0, 0, [].as_slice(), [].as_slice());
    let (number, at_ms, key_hash, answer) = match fate {
        Fate::Open => nothing,
        Fate::Used { at_ms, key_hash, answer } => (1, *at_ms, key_hash.as_slice(), answer.as_slice()),
        Fate::Withdrawn { at_ms } => (2, *at_ms, [].as_slice(), [].as_slice()),
    };
    let decide =
        "UPDATE invitation SET fate = ?, fate_ms = ?, key_hash = ?, answer = ? WHERE id = ? AND fate = 0";
    let args = Args::ints(&[number, at_ms as i64]).blob(key_hash).blob(answer).int(id as i64);
    if sql.run(decide, args).await? == 0 { Err(StoreError::Stale) } else { Ok(()) }
}

fn invitation(row: &Row) -> Result<Invitation, StoreError> {
    let hash = |column| -> Result<[u8; 32], StoreError> {
        let bytes = blob(row, column)?;
        bytes.as_ref().try_into().map_err(|_| StoreError::unreadable("an invitation"))
    };
    let fate_ms = int(row, 8)? as u64;
    let fate = match int(row, 7)? {
        0 => Fate::Open,
        1 => Fate::Used { at_ms: fate_ms, key_hash: hash(9)?, answer: blob(row, 10)?.to_vec() },
        2 => Fate::Withdrawn { at_ms: fate_ms },
        _ => return Err(StoreError::unreadable("an invitation")),
    };
    Ok(Invitation {
        secret_hash: hash(0)?,
        id: int(row, 1)? as u64,
        division: division(row, 2)?,
        hosts: text(row, 3)?.split_whitespace().map(str::to_owned).collect(),
        created_ms: int(row, 4)? as u64,
        created_by: text(row, 5)?,
        expire_ms: int(row, 6)? as u64,
        fate,
    })
}

impl Store {
    /// The invitation with this hash of its secret.
    pub async fn invitation(&self, secret_hash: &[u8; 32]) -> Result<Option<Invitation>, StoreError> {
        let row = self.reader().await?.sql().row(BY_HASH, Args::new().blob(secret_hash)).await?;
        row.as_ref().map(invitation).transpose()
    }

    /// The invitation of this number.
    pub async fn invitation_of(&self, id: u64) -> Result<Option<Invitation>, StoreError> {
        let row = self.reader().await?.sql().row(BY_ID, Args::ints(&[id as i64])).await?;
        row.as_ref().map(invitation).transpose()
    }

    /// Invitations, the latest first, after the one that was made at `after.0` with number `after.1`.
    pub async fn invitations(
        &self,
        after: Option<(u64, u64)>,
        limit: usize,
    ) -> Result<Vec<Invitation>, StoreError> {
        let (created_ms, id) = after.map_or((i64::MAX, i64::MAX), |(ms, id)| (ms as i64, id as i64));
        let args = Args::ints(&[created_ms, id, limit as i64]);
        let rows = self.reader().await?.sql().rows(LATEST_FIRST, args).await?;
        rows.iter().map(invitation).collect()
    }
}
