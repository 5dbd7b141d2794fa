//! Another store in the place of a damaged one, while no node runs on it: it begins with what was written here and nobody
//! else has yet, as far as that can be read, and is filled by the peers once its node starts.
//!
//! What peers have comes from them, whole, and not out of a damaged file: a flipped bit must not pass for a value.

use std::path::PathBuf;

use bytes::Bytes;

use super::Environment;
use crate::audit::Event;
use crate::division::Division;
use crate::ingest::changes::{Changes, LinkChange, RecordChange};
use crate::ingest::recovery::worth_saving;
use crate::ingest::topology::{PeerId, Topology};
use crate::record::{RecordName, codec};
use crate::schema::Schema;
use crate::store::{Damaged, StoreError, Writer};

/// What became of a damaged store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// Records that were saved whole.
    pub whole: u64,
    /// Records of which fields were saved that no other node may hold.
    pub partial: u64,
    /// Records or stretches of them that cannot be read.
    pub unreadable: u64,
    /// What is wrong with the file.
    pub damage: String,
    /// Where it is kept.
    pub former: Option<PathBuf>,
}

/// Sets the store at `location` aside and begins another one. `by` did it.
///
/// # Errors
/// A node runs on it; it is sound, and not to be set aside all the same; it is another division's or of a newer program;
/// the disk failed. Nothing has happened then.
pub async fn rebuild(
    location: &str,
    own: Division,
    parent: Option<Division>,
    environment: Environment,
    by: &str,
    even_if_sound: bool,
) -> Result<Rebuilt, StoreError> {
    let mut damaged = Damaged::open(location, own, even_if_sound).await?;
    let schema = Schema::current();
    let topology = topology(own, parent, &mut damaged).await;
    let undelivered = damaged.undelivered().await;
    let (store, mut writer) = damaged.another(environment.random, (environment.now_ms)()).await?;
    let (mut whole, mut partial, mut unreadable) = (0, 0, 0);
    while let Some(page) = damaged.records().await {
        let mut saved = Vec::new();
        for stored in page {
            // Where nobody can say what was delivered, nothing was.
            let is_owed = undelivered.as_ref().is_none_or(|keys| keys.contains(&stored.key));
            let Ok(record) = codec::decode(stored.state.clone()) else {
                unreadable += 1;
                continue;
            };
            let home = stored.name.home;
            let fields = worth_saving(&topology, schema.kind(stored.name.kind), home, &record);
            match fields {
                _ if is_owed => saved.push((stored.name, stored.state, true)),
                Some(fields) => saved.push((stored.name, codec::encode(&fields), false)),
                None => {}
            }
        }
        let (more_whole, more_partial, twice) = keep(&mut writer, saved, (environment.now_ms)()).await?;
        (whole, partial, unreadable) = (whole + more_whole, partial + more_partial, unreadable + twice);
    }
    let rebuilt = Event::StoreRebuilt { records: whole + partial, by: by.to_owned() };
    let changes = Changes { audit: vec![rebuilt.into()], ..Changes::default() };
    // Judged by no rules yet: the node judges, counts and owes all of it at its start.
    writer.apply(&changes, &[LinkChange::Learned([0; 16])], (environment.now_ms)()).await?;
    writer.close().await?;
    store.close().await;
    drop(store);
    let (gaps, damage) = (damaged.gaps(), damaged.damage().to_owned());
    let former = damaged.replace().await?;
    Ok(Rebuilt { whole, partial, unreadable: unreadable + gaps, damage, former })
}

/// Whom the node exchanged with, as far as it can be read.
async fn topology(own: Division, parent: Option<Division>, damaged: &mut Damaged) -> Topology {
    let mut topology = Topology::new(own);
    if let Some(parent) = parent {
        topology.set_parent(PeerId(1), parent);
    }
    for (id, child) in (2..).zip(damaged.children().await) {
        topology.add_child(PeerId(id), child);
    }
    topology
}

/// Stores what was saved; gives how many are whole, how many are not, and how many stood in the file twice.
async fn keep(
    writer: &mut Writer,
    saved: Vec<(RecordName, Bytes, bool)>,
    now_ms: u64,
) -> Result<(u64, u64, u64), StoreError> {
    let homes: Vec<Division> = saved.iter().map(|(name, ..)| name.home).collect();
    let keys = writer.allocate(&homes).await?;
    let change = |(key, (name, state, is_whole)): (i64, (RecordName, Bytes, bool))| {
        (RecordChange { key, name, revision: 0, state, conflicts: None, audience_added: vec![] }, is_whole)
    };
    let changes: Vec<(RecordChange, bool)> = keys.into_iter().zip(saved).map(change).collect();
    let of = |records: Vec<RecordChange>| Changes { records, ..Changes::default() };
    let count = |all: &[bool]| {
        let whole = all.iter().filter(|whole| **whole).count();
        (whole as u64, (all.len() - whole) as u64)
    };
    let all = changes.iter().map(|(change, _)| change.clone()).collect();
    let kinds: Vec<bool> = changes.iter().map(|(_, whole)| *whole).collect();
    match writer.apply(&of(all), &[], now_ms).await {
        Ok(_) => {
            let (whole, partial) = count(&kinds);
            return Ok((whole, partial, 0));
        }
        Err(error) if error.is_stale() => {}
        Err(error) => return Err(error),
    }
    // A damaged file may show a record twice.
    let (mut kept, mut twice) = (Vec::new(), 0);
    for (change, is_whole) in changes {
        match writer.apply(&of(vec![change]), &[], now_ms).await {
            Ok(_) => kept.push(is_whole),
            Err(error) if error.is_stale() => twice += 1,
            Err(error) => return Err(error),
        }
    }
    let (whole, partial) = count(&kept);
    Ok((whole, partial, twice))
}
