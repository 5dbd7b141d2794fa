//! What entries say, read again from their lines: what erasures purged, and which copies were made of the store. Lines of
//! earlier and later programs are read as far as they say the same.

use serde::{Deserialize, Serialize};

use crate::division::Division;

/// What a store forgets beside a record when content of it is erased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Beside {
    /// Settled conflicts that named it.
    pub history: u64,
    /// Cells of ledgers that were remembered.
    pub ledger_cells: u64,
    /// Cells of rows that are held until their division is known.
    pub held_cells: u64,
    /// Entries of the quarantine.
    pub refusals: u64,
}

/// What was purged of one record, in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Values that stood.
    pub values: u64,
    /// And what was kept beside the record.
    pub beside: Beside,
    /// When it was last, Unix milliseconds; `None`: nothing of it was ever erased here.
    pub last_ms: Option<u64>,
}

/// Where content went that an erasure does not reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Copied {
    /// Into a backup.
    Backup,
    /// Into a store that was set aside when another took its place.
    FormerStore,
    /// Into a bundle for this node.
    Bundle(Division),
}

/// How many, from when to when in Unix milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// How many.
    pub count: u64,
    /// The first.
    pub first_ms: u64,
    /// The last.
    pub last_ms: u64,
}

impl Span {
    /// Of both.
    pub fn and(self, more: Span) -> Span {
        Span {
            count: self.count.saturating_add(more.count),
            first_ms: self.first_ms.min(more.first_ms),
            last_ms: self.last_ms.max(more.last_ms),
        }
    }
}

/// What is read of a line.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Line {
    event: String,
    time_ms: u64,
    times: Option<u64>,
    since_ms: Option<u64>,
    record: String,
    values: u64,
    #[serde(flatten)]
    beside: Beside,
    peer: String,
    command: String,
    outcome: String,
}

fn read(line: &str) -> Line {
    // A line that cannot be read tells nothing; `audit verify` is who complains.
    serde_json::from_str(line).unwrap_or_default()
}

/// What the entries of erasures say of a record.
pub fn purged<'l>(lines: impl IntoIterator<Item = &'l str>, record: &str) -> Purged {
    let of_it = lines.into_iter().map(read).filter(|line| line.event == "erased" && line.record == record);
    of_it.fold(Purged::default(), |sum, line| Purged {
        values: sum.values.saturating_add(line.values),
        beside: Beside {
            history: sum.beside.history.saturating_add(line.beside.history),
            ledger_cells: sum.beside.ledger_cells.saturating_add(line.beside.ledger_cells),
            held_cells: sum.beside.held_cells.saturating_add(line.beside.held_cells),
            refusals: sum.beside.refusals.saturating_add(line.beside.refusals),
        },
        last_ms: sum.last_ms.max(Some(line.time_ms)),
    })
}

/// What an entry says of copies; `None`: nothing.
pub fn copied(line: &str) -> Option<(Copied, Span)> {
    let line = read(line);
    let copied = match line.event.as_str() {
        "command" if line.command == "BackupService.CreateBackup" && line.outcome == "ok" => Copied::Backup,
        "store_put_back" | "store_rebuilt" => Copied::FormerStore,
        "bundle_made" => Copied::Bundle(Division::parse(&line.peer).ok()?),
        _ => return None,
    };
    let first_ms = line.since_ms.unwrap_or(line.time_ms);
    Some((copied, Span { count: line.times.unwrap_or(1), first_ms, last_ms: line.time_ms }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{Event, Note, Repeated, line};
    use super::*;

    fn erased(record: &str, values: u64, beside: Beside) -> String {
        let (record, fields) = (record.to_owned(), vec![3]);
        let (by, reason) = ("local user 0".to_owned(), "asked \"for\"".to_owned());
        line(1, 50 + values, &Event::Erased { record, fields, values, by, reason, beside }.into())
    }

    #[test]
    fn what_erasures_purged_is_added_up_for_the_one_record() {
        let beside = Beside { history: 1, ledger_cells: 2, held_cells: 3, refusals: 4 };
        let lines = [erased("a", 5, beside), erased("ab", 7, beside), erased("a", 2, Beside::default())];
        let sum = purged(lines.iter().map(String::as_str), "a");
        assert_eq!(sum, Purged { values: 7, beside, last_ms: Some(55) });
        assert_eq!(purged(lines.iter().map(String::as_str), "b"), Purged::default());
        let earlier = r#"{"number":1,"time_ms":9,"event":"erased","record":"a","fields":[3],"values":2}"#;
        assert_eq!(purged([earlier, "no line"], "a").last_ms, Some(9), "of a program that counted less");
    }

    #[test]
    fn copies_are_told_by_what_made_them() {
        let peer = Division::parse("220822101").unwrap();
        let command = |command: &str, outcome| Event::Command {
            command: command.into(),
            by: "operator/wang".into(),
            outcome,
        };
        let copied = |event: Event| copied(&line(1, 9, &event.into()));
        let one = Span { count: 1, first_ms: 9, last_ms: 9 };
        assert_eq!(copied(command("BackupService.CreateBackup", "ok")), Some((Copied::Backup, one)));
        assert_eq!(copied(command("BackupService.CreateBackup", "permission_denied")), None);
        assert_eq!(copied(command("GrantService.UpdateGrant", "ok")), None);
        let made = Event::BundleMade { peer, bundle: 3, records: 1, receipts: 0, checksum: "".into() };
        assert_eq!(copied(made), Some((Copied::Bundle(peer), one)));
        assert_eq!(copied(Event::StorePutBack { by: "".into() }), Some((Copied::FormerStore, one)));
        assert_eq!(copied(Event::Stopped), None);
        let repeated = Some(Repeated { times: 3, since_ms: 4, last_ms: 8 });
        let often = Note { event: command("BackupService.CreateBackup", "ok"), repeated };
        let (_, often) = super::copied(&line(1, 9, &often)).unwrap();
        assert_eq!(often, Span { count: 3, first_ms: 4, last_ms: 8 });
        assert_eq!(one.and(often), Span { count: 4, first_ms: 4, last_ms: 9 });
    }
}
