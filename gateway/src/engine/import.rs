//! Ledgers: rows are compared with what the same source brought before, and go in as one transaction a piece.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use guantong_proto::v1;
use prost::Message;

use super::EngineError;
use super::catch_up::abreast;
use super::command::{Begun, Import, ImportProgress};
use super::group::bring_all;
use super::task::Task;
use crate::division::Division;
use crate::ingest::Work;
use crate::ingest::changes::{HeldRow, ImportRowMemory, SourceId};
use crate::ingest::checks::Violation;
use crate::ingest::import::Row;
use crate::ingest::local::WriteError;
use crate::record::{FieldNumber, RecordName, raw};
use crate::schema::KindId;
use crate::store::SourceRow;

/// What a source brought last, by row.
type Memory = HashMap<String, ImportRowMemory>;

/// Held rows read at a time.
const HELD_AT_ONCE: usize = 500;

/// A row whose name could be read.
struct Named {
    row: v1::ImportRow,
    name: RecordName,
    fields: Vec<(FieldNumber, Bytes)>,
    /// Its number among held rows, if it is one.
    held_id: Option<i64>,
}

/// The ledger that rows belong to.
struct Ledger<'a> {
    kind: KindId,
    source: &'a str,
    id: SourceId,
    generation: i64,
}

impl Task {
    /// Takes in rows of a ledger.
    pub(super) async fn import(&mut self, import: Import) -> Result<ImportProgress, EngineError> {
        let begun = match import.begun {
            Some(begun) => begun,
            None => {
                let row = abreast!(self, self.begin_import(&import))?;
                Begun { source: row.id, generation: row.generation }
            }
        };
        let Begun { source: id, generation } = begun;
        let ledger = Ledger { kind: import.kind, source: &import.source, id, generation };
        let rows = import.rows.into_iter().map(|row| (row, None)).collect();
        self.take_rows(&ledger, rows).await
    }

    /// Tries again the rows that were held for a division that is known by now.
    pub(super) async fn release_held(&mut self) -> Result<(), EngineError> {
        let divisions = self.shared.divisions();
        let mut ready: BTreeMap<SourceId, Vec<(v1::ImportRow, Option<i64>)>> = BTreeMap::new();
        let mut after = 0;
        loop {
            let page = self.shared.store.held(after, HELD_AT_ONCE, None).await?;
            let Some(last) = page.last() else { break };
            after = last.id;
            for entry in page.into_iter().filter(|h| divisions.known(h.row.division)) {
                if let Ok(row) = v1::ImportRow::decode(entry.row.row) {
                    ready.entry(entry.row.source).or_default().push((row, Some(entry.id)));
                }
            }
        }
        for (id, rows) in ready {
            let Some((source, kind)) = self.shared.store.source(id).await? else { continue };
            let ledger = Ledger { kind, source: &source, id, generation: 0 };
            self.take_rows(&ledger, rows).await?;
        }
        Ok(())
    }

    async fn take_rows(
        &mut self,
        ledger: &Ledger<'_>,
        rows: Vec<(v1::ImportRow, Option<i64>)>,
    ) -> Result<ImportProgress, EngineError> {
        let mut problems = Vec::new();
        let mut named: Vec<Named> = Vec::with_capacity(rows.len());
        for (row, held_id) in rows {
            match name_row(ledger, row, held_id) {
                Ok(row) => named.push(row),
                Err(problem) => problems.push(problem),
            }
        }
        let begun = Begun { source: ledger.id, generation: ledger.generation };
        let mut progress = abreast!(self, self.take_named(ledger, &named))?;
        progress.begun = begun;
        problems.append(&mut progress.problems);
        Ok(ImportProgress { problems, ..progress })
    }

    async fn begin_import(&mut self, import: &Import) -> Result<SourceRow, EngineError> {
        Ok(self.store.begin_import(&import.source, import.kind).await?)
    }

    async fn take_named(
        &mut self,
        ledger: &Ledger<'_>,
        named: &[Named],
    ) -> Result<ImportProgress, EngineError> {
        let mut progress = ImportProgress::default();
        let keys: Vec<String> = named.iter().map(|n| n.row.key.clone()).collect();
        let known = self.store.import_rows(ledger.id, &keys).await?;
        let memory: Memory = known.into_iter().flatten().map(|m| (m.row.clone(), m)).collect();
        let records = self.load_records(named.iter().map(|n| n.name.clone()).collect()).await?;
        let ((), changes, links) = self.decide(named.len(), |work| {
            bring_all(work, records);
            for row in named {
                take_row(work, ledger, row, &memory, &mut progress);
            }
        });
        self.commit(&changes, &links).await?;
        Ok(progress)
    }
}

fn problem(row: &v1::ImportRow, field: String, reason: String) -> v1::RowProblem {
    v1::RowProblem { line: row.line, field, reason }
}

/// Reads a row's name and cuts it into fields; a column that is empty is a field without bytes.
fn name_row(ledger: &Ledger<'_>, row: v1::ImportRow, held_id: Option<i64>) -> Result<Named, v1::RowProblem> {
    let home = Division::parse(&row.home).map_err(|e| problem(&row, "home".into(), e.to_string()))?;
    let id = if row.record_id.is_empty() { &row.key } else { &row.record_id };
    let name =
        RecordName::new(home, ledger.kind, id).map_err(|e| problem(&row, "key".into(), e.to_string()))?;
    let mut fields = raw::split(&row.fields).map_err(|e| problem(&row, String::new(), e.to_string()))?;
    fields.retain(|(field, _)| *field != 1);
    let given: Vec<FieldNumber> = fields.iter().map(|f| f.0).collect();
    fields.extend(row.cleared.iter().filter(|f| !given.contains(f)).map(|f| (*f, Bytes::new())));
    Ok(Named { row, name, fields, held_id })
}

fn take_row(
    work: &mut Work<'_>,
    ledger: &Ledger<'_>,
    named: &Named,
    memory: &Memory,
    progress: &mut ImportProgress,
) {
    let Some(slot) = work.slot(&named.name) else {
        let reason = "the record stored under this name cannot be read; it must be repaired first";
        progress.problems.push(problem(&named.row, String::new(), reason.into()));
        return;
    };
    let row = Row {
        source: ledger.source.into(),
        fields: named.fields.clone(),
        memory: memory.get(&named.row.key).map(|m| m.values.clone()),
    };
    let remember = ImportRowMemory {
        source: ledger.id,
        row: named.row.key.clone(),
        key: work.key(slot),
        generation: ledger.generation,
        values: BTreeMap::new(),
    };
    match work.import(slot, &row, remember) {
        Ok((written, erased)) => {
            progress.erased_count += erased as u64;
            progress.created_count += u64::from(written.created);
            progress.changed_count += u64::from(written.changed && !written.created);
            progress.unchanged_count += u64::from(!written.changed);
            progress.conflict_count += u64::from(written.conflicts);
            if let Some(id) = named.held_id {
                work.release_held(id);
            }
        }
        Err(WriteError::Invalid(violations)) if violations.iter().all(Violation::is_unknown_division) => {
            hold(work, ledger, &named.row, &violations, progress);
        }
        Err(error) => {
            let field = blamed(work, ledger.kind, &error);
            progress.problems.push(problem(&named.row, field, error.to_string()));
        }
    }
}

/// The field that an error blames, by its name in the contract.
fn blamed(work: &Work<'_>, kind: KindId, error: &WriteError) -> String {
    let WriteError::Invalid(violations) = error else { return String::new() };
    let Some(first) = violations.first() else { return String::new() };
    let field = work.context().schema.kind(kind).field(first.field());
    field.map(|f| format!("{}{}", f.name, first.part())).unwrap_or_default()
}

fn hold(
    work: &mut Work<'_>,
    ledger: &Ledger<'_>,
    row: &v1::ImportRow,
    violations: &[Violation],
    progress: &mut ImportProgress,
) {
    let Some(Violation::UnknownDivision { division, detail, .. }) = violations.first() else { return };
    progress.held_count += 1;
    work.hold(HeldRow {
        source: ledger.id,
        row: row.encode_to_vec().into(),
        row_key: row.key.clone(),
        division: *division,
        reason: detail.clone(),
        held_ms: work.context().now_ms,
    });
}
