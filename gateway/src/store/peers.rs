//! Peers, and in whose name the store writes.

use super::sql::{Args, Rows, Sql, code, division, int, maybe, text};
use super::{Store, StoreError};
use crate::ingest::changes::PeerState;
use crate::ingest::topology::{PeerId, Role};
use crate::ingest::writers::{NewWriter, WriterState};
use crate::session::greeting::{IssuedTokens, Token};
use crate::stamp::{Clock, Stamp, Writer};

static CLOCKS: Rows = Rows::new(
    "WITH new (division, id, clock) AS (VALUES",
    "(?,?,?)",
    ") UPDATE writer SET clock = CASE WHEN writer.clock < new.clock THEN new.clock ELSE writer.clock END FROM new
       WHERE writer.division = new.division AND writer.id = new.id",
);

/// Stores a peer in place of what was known of it.
pub(super) async fn put(sql: &mut Sql<'_>, peer: &PeerState) -> Result<(), StoreError> {
    let put = "INSERT INTO peer (peer, role, division, newest_counter, newest_random, previous_counter,
            previous_random, parent_restored, token_counter, token_random, clock_at_token, clock_before_token,
            opened_revision, epoch, revision, recovering_to, slot, summed_through)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (peer) DO UPDATE SET role = excluded.role, division = excluded.division,
            newest_counter = excluded.newest_counter, newest_random = excluded.newest_random,
            previous_counter = excluded.previous_counter, previous_random = excluded.previous_random,
            parent_restored = excluded.parent_restored, token_counter = excluded.token_counter,
            token_random = excluded.token_random, clock_at_token = excluded.clock_at_token,
            clock_before_token = excluded.clock_before_token, opened_revision = excluded.opened_revision,
            epoch = excluded.epoch, revision = excluded.revision, recovering_to = excluded.recovering_to,
            slot = excluded.slot, summed_through = excluded.summed_through
        WHERE peer.role = excluded.role AND peer.division = excluded.division";
    let role = match peer.role {
        Role::Parent => 1,
        Role::Child => 2,
        Role::Partner => 3,
    };
    let mut args = Args::ints(&[peer.id.0, role, code(peer.division)]);
    push_token(&mut args, peer.issued.newest);
    push_token(&mut args, peer.issued.previous);
    args.push_int(i64::from(peer.issued.parent_restored));
    push_token(&mut args, peer.token);
    args.push_int(peer.clock_at_token.0 as i64);
    args.push_int(peer.clock_before_token.0 as i64);
    args.push_maybe(peer.opened_revision.map(|revision| revision as i64));
    args.push_int(peer.epoch as i64);
    args.push_int(peer.revision as i64);
    args.push_maybe(peer.recovering_to.map(|stamp| stamp.0 as i64));
    args.push_int(peer.slot);
    args.push_int(peer.summed_through);
    // Another process may have given the number to someone else meanwhile.
    if sql.run(put, args).await? == 1 { Ok(()) } else { Err(StoreError::Stale) }
}

fn push_token(args: &mut Args, token: Option<Token>) {
    args.push_maybe(token.map(|t| t.counter as i64));
    args.push_maybe(token.map(|t| t.random as i64));
}

/// Notes the highest transaction of a peer that was seen.
pub(super) async fn seen(sql: &mut Sql<'_>, peer: PeerId, revision: u64) -> Result<(), StoreError> {
    let seen = "UPDATE peer SET revision = ? WHERE peer = ? AND revision < ?";
    sql.run(seen, Args::ints(&[revision as i64, peer.0, revision as i64])).await?;
    Ok(())
}

/// The child has stored its newest token.
pub(super) async fn confirm(sql: &mut Sql<'_>, peer: PeerId) -> Result<(), StoreError> {
    let confirm =
        "UPDATE peer SET previous_counter = NULL, previous_random = NULL, parent_restored = 0 WHERE peer = ?";
    sql.run(confirm, Args::ints(&[peer.0])).await?;
    Ok(())
}

/// Stores a writer that was made.
pub(super) async fn new_writer(sql: &mut Sql<'_>, new: &NewWriter) -> Result<(), StoreError> {
    let add = "INSERT INTO writer (division, id, purpose, clock, current, slot) VALUES (?, ?, ?, 0, 1, ?)
        ON CONFLICT (division, id) DO NOTHING";
    let args = Args::ints(&[code(new.writer.division), new.writer.id as i64]);
    let args = args.text(&new.purpose).int(sql.slot());
    sql.run(add, args).await?;
    Ok(())
}

/// Keeps a writer, but as one that is not written as any more.
pub(super) async fn give_up(sql: &mut Sql<'_>, writer: Writer) -> Result<(), StoreError> {
    let give_up = "UPDATE writer SET current = 0 WHERE division = ? AND id = ?";
    sql.run(give_up, Args::ints(&[code(writer.division), writer.id as i64])).await?;
    Ok(())
}

/// Stores the last stamp of each writer. All must be known, or their stamps might be given out again.
pub(super) async fn clocks(sql: &mut Sql<'_>, clocks: &[(Writer, Stamp)]) -> Result<(), StoreError> {
    let known = sql
        .many(&CLOCKS, clocks, |args, (writer, stamp)| {
            args.push_division(writer.division);
            args.push_int(writer.id as i64);
            args.push_int(stamp.0 as i64);
        })
        .await?;
    if known != clocks.len() as u64 {
        return Err(StoreError::Database("a writer was used before it was stored".into()));
    }
    Ok(())
}

impl Store {
    /// All peers, by number.
    pub async fn peers(&self) -> Result<Vec<PeerState>, StoreError> {
        let list =
            "SELECT peer, role, division, newest_counter, newest_random, previous_counter, previous_random,
                parent_restored, token_counter, token_random, clock_at_token, clock_before_token, opened_revision,
                epoch, revision, recovering_to, slot, summed_through
            FROM peer ORDER BY peer";
        let rows = self.reader().await?.sql().rows(list, Args::new()).await?;
        let token = |row, first| {
            let (counter, random) = (maybe(row, first)?, maybe(row, first + 1)?);
            Ok::<_, StoreError>(
                counter.zip(random).map(|(c, r)| Token { counter: c as u64, random: r as u64 }),
            )
        };
        let peer = |row| {
            Ok(PeerState {
                id: PeerId(int(row, 0)?),
                role: match int(row, 1)? {
                    1 => Role::Parent,
                    2 => Role::Child,
                    _ => Role::Partner,
                },
                division: division(row, 2)?,
                issued: IssuedTokens {
                    newest: token(row, 3)?,
                    previous: token(row, 5)?,
                    parent_restored: int(row, 7)? != 0,
                },
                token: token(row, 8)?,
                clock_at_token: Stamp(int(row, 10)? as u64),
                clock_before_token: Stamp(int(row, 11)? as u64),
                opened_revision: maybe(row, 12)?.map(|revision| revision as u64),
                epoch: int(row, 13)? as u64,
                revision: int(row, 14)? as u64,
                recovering_to: maybe(row, 15)?.map(|stamp| Stamp(stamp as u64)),
                slot: int(row, 16)?,
                summed_through: int(row, 17)?,
            })
        };
        rows.iter().map(peer).collect()
    }

    /// All that the store ever wrote as, in any slot.
    pub async fn writers(&self) -> Result<Vec<WriterState>, StoreError> {
        let list = "SELECT division, id, purpose, clock, current, slot FROM writer ORDER BY division, id";
        let rows = self.reader().await?.sql().rows(list, Args::new()).await?;
        let writer = |row| {
            Ok(WriterState {
                writer: Writer { division: division(row, 0)?, id: int(row, 1)? as u64 },
                purpose: text(row, 2)?,
                clock: Clock::resume(Stamp(int(row, 3)? as u64)),
                current: int(row, 4)? != 0,
                slot: int(row, 5)?,
            })
        };
        rows.iter().map(writer).collect()
    }
}
