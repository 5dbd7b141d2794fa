//! Exchange by bundles: what both sides remember of each other, which outbox rows went into which bundle, and receipts
//! that wait to be carried.

use bytes::Bytes;

use super::outbox::ROW_KEYS_MAX;
use super::pack::{keys_of, pack_keys};
use super::sql::{Args, Row, Rows, Sql, blob, code, int, maybe_blob};
use super::{Store, StoreError};
use crate::bundle::PublicKey;
use crate::bundle::keeping::{BundleChange, MADE_MAX, Made, ReceiptState, TAKEN_MAX, TakenIn};
use crate::bundle::standing::{Mark, PeerKey, Standing};
use crate::division::Division;
use crate::ingest::changes::RecordKey;
use crate::ingest::topology::PeerId;

/// Receipts that one bundle carries, at most; the rest goes with the next.
const RECEIPTS_MAX: i64 = 1_000;

/// As the state of a receipt: nobody takes it. One that has arrived is the bundle that carried it first, below zero.
const NEVER: i64 = -(1 << 62);

static ADD_ROWS: Rows =
    Rows::new("INSERT INTO bundle_row (division, number, part, seqs) VALUES", "(?,?,?,?)", "");

/// Makes one change.
pub(super) async fn change(
    sql: &mut Sql<'_>,
    division: Division,
    change: &BundleChange,
) -> Result<(), StoreError> {
    match change {
        BundleChange::Standing(standing) => put_standing(sql, division, standing).await,
        BundleChange::Made { made, seqs, receipts_until_ms } => {
            add_made(sql, division, made, seqs).await?;
            carry(sql, division, made.mark.number, *receipts_until_ms).await
        }
        BundleChange::Confirmed { number, whole } => confirm(sql, division, *number, *whole).await,
        BundleChange::Taking(taken) => put_taken(sql, division, taken).await,
        BundleChange::Progress { mark, batch_id, refused, refusals } => {
            progress(sql, division, *mark, (*batch_id, *refused), refusals).await
        }
        BundleChange::Took { mark, taken_ms, one_way } => {
            let receipt = if *one_way { NEVER } else { 0 };
            let took = "UPDATE bundle_taken SET taken_ms = ?, receipt = ?
                WHERE division = ? AND epoch = ? AND number = ? AND random = ?";
            let args = Args::ints(&[*taken_ms as i64, receipt]);
            sql.run(took, of_mark(args, division, *mark)).await.map(drop)
        }
        BundleChange::ReceiptsArrived { number, newest } => arrived(sql, division, *number, *newest).await,
    }
}

fn of_mark(args: Args, division: Division, mark: Mark) -> Args {
    args.int(code(division)).int(mark.epoch as i64).int(mark.number as i64).int(mark.random as i64)
}

fn pack_lives(lives: &[u64]) -> Vec<u8> {
    lives.iter().flat_map(|life| life.to_le_bytes()).collect()
}

fn lives_of(packed: &[u8]) -> Vec<u64> {
    packed.as_chunks::<8>().0.iter().map(|life| u64::from_le_bytes(*life)).collect()
}

async fn put_standing(sql: &mut Sql<'_>, division: Division, standing: &Standing) -> Result<(), StoreError> {
    let put = "INSERT INTO bundle_peer (division, version, public_key, key_ms, key_chain, sent_epoch, sent_number, sent_random,
            sent_ms, sent_through, confirmed_number, confirmed_ms, confirmed_to_ms, told, past, peer_epoch,
            peer_time_ms, seen_number, seen_random, seen_ms, one_way, restored_epoch, clock)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (division) DO UPDATE SET version = excluded.version, public_key = excluded.public_key,
            key_ms = excluded.key_ms, key_chain = excluded.key_chain, sent_epoch = excluded.sent_epoch, sent_number = excluded.sent_number,
            sent_random = excluded.sent_random, sent_ms = excluded.sent_ms, sent_through = excluded.sent_through,
            confirmed_number = excluded.confirmed_number, confirmed_ms = excluded.confirmed_ms,
            confirmed_to_ms = excluded.confirmed_to_ms, told = excluded.told, past = excluded.past,
            peer_epoch = excluded.peer_epoch, peer_time_ms = excluded.peer_time_ms,
            seen_number = excluded.seen_number, seen_random = excluded.seen_random, seen_ms = excluded.seen_ms,
            one_way = excluded.one_way, restored_epoch = excluded.restored_epoch, clock = excluded.clock
        WHERE bundle_peer.version = excluded.version - 1";
    let mut args = Args::ints(&[code(division), standing.version + 1]);
    match &standing.key {
        Some(key) => {
            args.push_blob(&key.key.0);
            args.push_int(key.time_ms as i64);
            args.push_blob(&key.certificates);
        }
        None => {
            args.push_no_blob();
            args.push_int(0);
            args.push_blob(&[]);
        }
    }
    let (sent, sent_ms) = standing.sent.unwrap_or_default();
    for value in [sent.epoch, sent.number, sent.random, sent_ms] {
        args.push_int(value as i64);
    }
    args.push_int(standing.sent_through);
    for value in [standing.confirmed_number, standing.confirmed_ms, standing.confirmed_to_ms] {
        args.push_int(value as i64);
    }
    args.push_blob(&pack_lives(&standing.told));
    args.push_blob(&pack_lives(&standing.past));
    let (seen, seen_ms) = standing.seen.unwrap_or_default();
    for value in [standing.peer_epoch, standing.peer_time_ms, seen.number, seen.random, seen_ms] {
        args.push_int(value as i64);
    }
    args.push_int(i64::from(standing.one_way));
    args.push_int(standing.restored_epoch as i64);
    args.push_int(standing.clock as i64);
    // Another process may have changed it meanwhile.
    if sql.run(put, args).await? == 1 { Ok(()) } else { Err(StoreError::Stale) }
}

async fn add_made(
    sql: &mut Sql<'_>,
    division: Division,
    made: &Made,
    seqs: &[i64],
) -> Result<(), StoreError> {
    let Mark { epoch, number, random } = made.mark;
    let add = "INSERT INTO bundle_made (division, number, epoch, random, made_ms, whole, records, clock)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
    let args = Args::ints(&[code(division), number as i64, epoch as i64, random as i64, made.made_ms as i64]);
    let args = args.int(i64::from(made.whole)).int(made.records as i64).int(made.clock as i64);
    sql.run(add, args).await?;
    let parts: Vec<(usize, &[i64])> = seqs.chunks(ROW_KEYS_MAX).enumerate().collect();
    sql.many(&ADD_ROWS, &parts, |args, (part, seqs)| {
        args.push_division(division);
        args.push_int(number as i64);
        args.push_int(*part as i64);
        args.push_blob(&pack_keys(seqs));
    })
    .await?;
    let oldest = number.saturating_sub(MADE_MAX) as i64;
    for forget in [
        "DELETE FROM bundle_made WHERE division = ? AND number <= ?",
        "DELETE FROM bundle_row WHERE division = ? AND number <= ?",
    ] {
        sql.run(forget, Args::ints(&[code(division), oldest])).await?;
    }
    Ok(())
}

async fn carry(sql: &mut Sql<'_>, division: Division, number: u64, until_ms: u64) -> Result<(), StoreError> {
    let carried = "UPDATE bundle_taken SET receipt = ? WHERE division = ? AND receipt = 0 AND taken_ms > 0
        AND taken_ms <= ?";
    sql.run(carried, Args::ints(&[number as i64, code(division), until_ms as i64])).await.map(drop)
}

async fn confirm(sql: &mut Sql<'_>, division: Division, number: u64, whole: bool) -> Result<(), StoreError> {
    let done = if whole {
        "DELETE FROM bundle_row WHERE division = ? AND number <= ?"
    } else {
        "DELETE FROM bundle_row WHERE division = ? AND number = ?"
    };
    sql.run(done, Args::ints(&[code(division), number as i64])).await.map(drop)
}

async fn put_taken(sql: &mut Sql<'_>, division: Division, taken: &TakenIn) -> Result<(), StoreError> {
    let Mark { epoch, number, .. } = taken.mark;
    let key = [code(division), epoch as i64, number as i64];
    let forget = "DELETE FROM bundle_refusal WHERE division = ? AND epoch = ? AND number = ?";
    sql.run(forget, Args::ints(&key)).await?;
    let put = "INSERT INTO bundle_taken (division, epoch, number, random, previous_epoch, previous_number,
            previous_random, batches, taken_ms, refused, receipt)
        VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0, 0, 0)
        ON CONFLICT (division, epoch, number) DO UPDATE SET random = excluded.random,
            previous_epoch = excluded.previous_epoch, previous_number = excluded.previous_number,
            previous_random = excluded.previous_random, batches = 0, taken_ms = 0, refused = 0, receipt = 0";
    let previous = taken.previous.unwrap_or_default();
    let args = Args::ints(&key).int(taken.mark.random as i64).int(previous.epoch as i64);
    sql.run(put, args.int(previous.number as i64).int(previous.random as i64)).await?;
    // By number, whatever the life: what is forgotten is old in each.
    let oldest = number.saturating_sub(TAKEN_MAX) as i64;
    let old = "DELETE FROM bundle_taken WHERE division = ? AND number < ? AND receipt < 0";
    sql.run(old, Args::ints(&[code(division), oldest])).await.map(drop)
}

async fn progress(
    sql: &mut Sql<'_>,
    division: Division,
    mark: Mark,
    (batch_id, refused): (u64, u64),
    refusals: &Bytes,
) -> Result<(), StoreError> {
    let so_far = "UPDATE bundle_taken SET batches = ?, refused = refused + ?
        WHERE division = ? AND epoch = ? AND number = ? AND random = ? AND batches < ?";
    let args = of_mark(Args::ints(&[batch_id as i64, refused as i64]), division, mark);
    if sql.run(so_far, args.int(batch_id as i64)).await? == 0 || refusals.is_empty() {
        return Ok(());
    }
    let add = "INSERT INTO bundle_refusal (division, epoch, number, batch, refusals) VALUES (?, ?, ?, ?, ?)
        ON CONFLICT (division, epoch, number, batch) DO UPDATE SET refusals = excluded.refusals";
    let args = Args::ints(&[code(division), mark.epoch as i64, mark.number as i64, batch_id as i64]);
    sql.run(add, args.blob(refusals)).await.map(drop)
}

async fn arrived(sql: &mut Sql<'_>, division: Division, number: u64, newest: bool) -> Result<(), StoreError> {
    let refusals = "DELETE FROM bundle_refusal WHERE division = ? AND EXISTS (SELECT 1 FROM bundle_taken t
        WHERE t.division = bundle_refusal.division AND t.epoch = bundle_refusal.epoch
          AND t.number = bundle_refusal.number AND t.receipt > 0 AND t.receipt <= ?)";
    sql.run(refusals, Args::ints(&[code(division), number as i64])).await?;
    let done =
        "UPDATE bundle_taken SET receipt = -receipt WHERE division = ? AND receipt > 0 AND receipt <= ?";
    sql.run(done, Args::ints(&[code(division), number as i64])).await?;
    if !newest {
        return Ok(());
    }
    let again =
        "UPDATE bundle_taken SET receipt = -receipt WHERE division = ? AND receipt > ? AND receipt < ?";
    sql.run(again, Args::ints(&[code(division), NEVER, -(number as i64)])).await.map(drop)
}

const STANDING: &str =
    "SELECT version, public_key, key_ms, key_chain, sent_epoch, sent_number, sent_random, sent_ms, sent_through,
        confirmed_number, confirmed_ms, confirmed_to_ms, told, past, peer_epoch, peer_time_ms, seen_number,
        seen_random, seen_ms, one_way, restored_epoch, clock
    FROM bundle_peer WHERE division = ?";

fn standing(row: &Row) -> Result<Standing, StoreError> {
    let number = |column| int(row, column).map(|value| value as u64);
    let key = match maybe_blob(row, 1)? {
        Some(key) => {
            let key =
                PublicKey::from_bytes(&key).ok_or_else(|| StoreError::unreadable("a key of bundles"))?;
            Some(PeerKey { key, time_ms: number(2)?, certificates: blob(row, 3)? })
        }
        None => None,
    };
    let sent = Mark { epoch: number(4)?, number: number(5)?, random: number(6)? };
    let peer_epoch = number(14)?;
    let seen = Mark { epoch: peer_epoch, number: number(16)?, random: number(17)? };
    Ok(Standing {
        version: int(row, 0)?,
        key,
        sent: Some((sent, number(7)?)).filter(|(sent, _)| sent.number > 0),
        sent_through: int(row, 8)?,
        confirmed_number: number(9)?,
        confirmed_ms: number(10)?,
        confirmed_to_ms: number(11)?,
        told: lives_of(&blob(row, 12)?),
        past: lives_of(&blob(row, 13)?),
        peer_epoch,
        peer_time_ms: number(15)?,
        seen: Some((seen, number(18)?)).filter(|(seen, _)| seen.number > 0),
        one_way: int(row, 19)? != 0,
        restored_epoch: number(20)?,
        clock: number(21)?,
    })
}

fn made(row: &Row) -> Result<Made, StoreError> {
    let number = |column| int(row, column).map(|value| value as u64);
    Ok(Made {
        mark: Mark { epoch: number(0)?, number: number(1)?, random: number(2)? },
        made_ms: number(3)?,
        whole: int(row, 4)? != 0,
        records: number(5)?,
        clock: number(6)?,
    })
}

fn taken(row: &Row) -> Result<TakenIn, StoreError> {
    let number = |column| int(row, column).map(|value| value as u64);
    let previous = Mark { epoch: number(3)?, number: number(4)?, random: number(5)? };
    Ok(TakenIn {
        mark: Mark { epoch: number(0)?, number: number(1)?, random: number(2)? },
        previous: Some(previous).filter(|previous| previous.number > 0),
        batches: number(6)?,
        taken_ms: number(7)?,
        refused: number(8)?,
        receipt: match int(row, 9)? {
            0 => ReceiptState::Owed,
            carried if carried > 0 => ReceiptState::Carried(carried as u64),
            _ => ReceiptState::Done,
        },
    })
}

impl Store {
    /// What is remembered of the exchange by bundles with a division; of one that there was none with: nothing.
    pub async fn bundle_standing(&self, division: Division) -> Result<Standing, StoreError> {
        let row = self.reader().await?.sql().row(STANDING, Args::ints(&[code(division)])).await?;
        row.as_ref().map_or(Ok(Standing::default()), standing)
    }

    /// A bundle that was made for a division, where it is still remembered.
    pub async fn bundle_made(&self, division: Division, number: u64) -> Result<Option<Made>, StoreError> {
        let made_of = "SELECT epoch, number, random, made_ms, whole, records, clock FROM bundle_made
            WHERE division = ? AND number = ?";
        let args = Args::ints(&[code(division), number as i64]);
        let row = self.reader().await?.sql().row(made_of, args).await?;
        row.as_ref().map(made).transpose()
    }

    /// The bundles that were made for a division and are remembered, the newest first.
    pub async fn bundles_made(&self, division: Division) -> Result<Vec<Mark>, StoreError> {
        let made_of = "SELECT epoch, number, random FROM bundle_made WHERE division = ? ORDER BY number DESC
            LIMIT ?";
        let args = Args::ints(&[code(division), MADE_MAX as i64]);
        let rows = self.reader().await?.sql().rows(made_of, args).await?;
        let number = |row: &Row, column| int(row, column).map(|value| value as u64);
        let mark =
            |row| Ok(Mark { epoch: number(row, 0)?, number: number(row, 1)?, random: number(row, 2)? });
        rows.iter().map(mark).collect()
    }

    /// Of the last bundles of one life of a division's store up to `last`, the numbers between the first and the last that
    /// were never taken in.
    pub async fn bundles_missing(&self, division: Division, last: Mark) -> Result<u64, StoreError> {
        let found = "SELECT COALESCE(MIN(number), 0), COUNT(*) FROM bundle_taken
            WHERE division = ? AND epoch = ? AND number > ? AND number <= ? AND taken_ms > 0";
        let args = Args::ints(&[code(division), last.epoch as i64]);
        let args = args.int(last.number.saturating_sub(MADE_MAX) as i64).int(last.number as i64);
        let row = self.reader().await?.sql().row(found, args).await?;
        let Some(row) = row else { return Ok(0) };
        let (first, count) = (int(&row, 0)? as u64, int(&row, 1)? as u64);
        Ok(match count {
            0 => 0,
            _ => (last.number + 1).saturating_sub(first).saturating_sub(count),
        })
    }

    /// The last bundle that was made for a division, whole.
    pub async fn last_bundle_made(&self, division: Division) -> Result<Option<Made>, StoreError> {
        let last = "SELECT epoch, number, random, made_ms, whole, records, clock FROM bundle_made
            WHERE division = ? ORDER BY number DESC LIMIT 1";
        let row = self.reader().await?.sql().row(last, Args::ints(&[code(division)])).await?;
        row.as_ref().map(made).transpose()
    }

    /// The next outbox rows of a bundle, after part `after`; `None`: there are no more. Gives the part's number too.
    pub async fn bundle_rows(
        &self,
        division: Division,
        number: u64,
        after: i64,
    ) -> Result<Option<(i64, Vec<i64>)>, StoreError> {
        let next = "SELECT part, seqs FROM bundle_row WHERE division = ? AND number = ? AND part > ?
            ORDER BY part LIMIT 1";
        let args = Args::ints(&[code(division), number as i64, after]);
        let row = self.reader().await?.sql().row(next, args).await?;
        row.as_ref().map(|row| Ok((int(row, 0)?, keys_of(&blob(row, 1)?)?))).transpose()
    }

    /// Bundles of one life of a division's store with these numbers that were taken in, or begun to be.
    pub async fn bundles_taken(
        &self,
        division: Division,
        epoch: u64,
        numbers: std::ops::RangeInclusive<u64>,
    ) -> Result<Vec<TakenIn>, StoreError> {
        let found = "SELECT epoch, number, random, previous_epoch, previous_number, previous_random, batches,
                taken_ms, refused, receipt
            FROM bundle_taken WHERE division = ? AND epoch = ? AND number BETWEEN ? AND ? ORDER BY number";
        let (low, high) = (*numbers.start() as i64, *numbers.end() as i64);
        let args = Args::ints(&[code(division), epoch as i64, low, high]);
        let rows = self.reader().await?.sql().rows(found, args).await?;
        rows.iter().map(taken).collect()
    }

    /// Bundles of a division that were taken in, and whose receipts it may not have; the oldest first.
    pub async fn bundle_receipts(&self, division: Division) -> Result<Vec<TakenIn>, StoreError> {
        let owed = "SELECT epoch, number, random, previous_epoch, previous_number, previous_random, batches,
                taken_ms, refused, receipt
            FROM bundle_taken WHERE division = ? AND receipt >= 0 AND taken_ms > 0
            ORDER BY taken_ms, number LIMIT ?";
        let args = Args::ints(&[code(division), RECEIPTS_MAX]);
        let rows = self.reader().await?.sql().rows(owed, args).await?;
        rows.iter().map(taken).collect()
    }

    /// What was refused of the next batch of a bundle after `after`, with the batch's number.
    pub async fn bundle_refusals(
        &self,
        division: Division,
        mark: Mark,
        after: u64,
    ) -> Result<Option<(u64, Bytes)>, StoreError> {
        let next = "SELECT batch, refusals FROM bundle_refusal
            WHERE division = ? AND epoch = ? AND number = ? AND batch > ? ORDER BY batch LIMIT 1";
        let args = Args::ints(&[code(division), mark.epoch as i64, mark.number as i64, after as i64]);
        let row = self.reader().await?.sql().row(next, args).await?;
        row.as_ref().map(|row| Ok((int(row, 0)? as u64, blob(row, 1)?))).transpose()
    }

    /// The records that rows of a peer's outbox name, row by row, of those rows that are still there.
    pub async fn owed_keys(&self, peer: PeerId, seqs: &[i64]) -> Result<Vec<Vec<RecordKey>>, StoreError> {
        let keys = "SELECT keys FROM outbox WHERE seq IN (SELECT value FROM json_each(?)) AND peer = ?";
        let args = Args::new().list(seqs.iter().copied()).int(peer.0);
        let rows = self.reader().await?.sql().rows(keys, args).await?;
        rows.iter().map(|row| keys_of(&blob(row, 0)?)).collect()
    }
}
