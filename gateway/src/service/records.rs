//! `RecordService`: reading and writing records of any kind, moving cases, taking in ledgers.

use std::sync::Arc;

use bytes::Bytes;
use guantong_proto::v1;
use guantong_proto::v1::record_service_server::RecordService;
use prost::Message;
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status, Streaming};

use super::sight::{PARTNER_PURPOSE, Sight};
use super::writes::{acting, basis, fields_to_write, optional_division, repeatable};
use super::{Links, caller, erasure, page, status, trace, view, writes};
use crate::engine::{Begun, Engine, Import, ImportProgress, Write, WriteAction};
use crate::ingest::local::{Existence, LocalWrite};
use crate::record::{RecordName, codec};

/// Rows of a ledger that go in together.
const ROWS_AT_ONCE: usize = 2_000;
/// Fewer go in together where they hold so many bytes.
const ROWS_BYTES_ENOUGH: usize = 8 * 1024 * 1024;
/// Rows of the previous ledger that are listed when they are missing from a full one.
const VANISHED_MAX: usize = 10_000;
/// Problems that are listed; more are counted by the caller from the rows it sent.
const PROBLEMS_MAX: usize = 10_000;

pub(super) struct Records {
    engine: Engine,
    links: Links,
}

impl Records {
    pub(super) fn new(engine: Engine, links: Links) -> Records {
        Records { engine, links }
    }

    fn name(&self, field: &str, name: &str) -> Result<RecordName, Status> {
        self.engine.name(name).map_err(|e| status::bad_name(field, &e))
    }

    async fn read(&self, sight: &Sight, name: &RecordName) -> Result<v1::Record, Status> {
        let (_, record) = sight.read(&self.engine, name).await?;
        Ok(sight.view(self.engine.shared(), name, &record))
    }

    async fn write(&self, sight: &Sight, write: Write) -> Result<v1::Record, Status> {
        let name = write.name.clone();
        let schema = &self.engine.shared().schema;
        self.engine.write(write).await.map_err(|e| status::of_record(schema, &name, &e))?;
        self.read(sight, &name).await
    }
}

#[tonic::async_trait]
impl RecordService for Records {
    async fn get_record(
        &self,
        request: Request<v1::GetRecordRequest>,
    ) -> Result<Response<v1::Record>, Status> {
        let sight = Sight::of(self.engine.shared(), request.extensions())?;
        let name = self.name("name", &request.get_ref().name)?;
        Ok(Response::new(self.read(&sight, &name).await?))
    }

    async fn list_records(
        &self,
        request: Request<v1::ListRecordsRequest>,
    ) -> Result<Response<v1::ListRecordsResponse>, Status> {
        let shared = self.engine.shared();
        let sight = Sight::of(shared, request.extensions())?;
        let request = request.into_inner();
        let parent = sight.part_of("parent", page::parent("parent", &request.parent)?)?;
        let kind = page::kind(&shared.schema, "kind", &request.kind)?;
        sight.check_kind(kind)?;
        let size = page::size(request.page_size)?;
        let query = format!("{parent} {} {}", kind.rule.name, request.show_deleted);
        let after = match page::after(&query, &request.page_token)? {
            Some(last) => Some(self.name("page_token", &last)?),
            None => None,
        };
        let after = after.as_ref().map(|name| (name.home, &*name.id));
        let listed = shared.store.list(kind.id, Some(parent), after, size).await;
        let mut listed = listed.map_err(|e| status::of_store(&e))?;
        let fitting = page::fitting(listed.iter().map(|stored| stored.state.len()));
        let more = listed.len() == size || fitting < listed.len();
        listed.truncate(fitting);
        let last = listed.last().filter(|_| more);
        let last = last.map(|stored| stored.name.display(&shared.schema).to_string());
        let mut records = Vec::with_capacity(listed.len());
        for stored in listed {
            let record = codec::decode(stored.state).map_err(|e| status::broken(&e.to_string()))?;
            let shown = request.show_deleted || !view::is_deleted(kind, &stored.name, &record);
            if shown && sight.sees(kind, &stored.name, &record) {
                records.push(sight.view(shared, &stored.name, &record));
            }
        }
        let next_page_token = last.map(|last| page::token(&query, &last)).unwrap_or_default();
        Ok(Response::new(v1::ListRecordsResponse { records, next_page_token }))
    }

    async fn write_record(
        &self,
        request: Request<v1::WriteRecordRequest>,
    ) -> Result<Response<v1::Record>, Status> {
        let sight = Sight::of(self.engine.shared(), request.extensions())?;
        let traceparent = trace::of_request(request.metadata());
        let request = request.into_inner();
        let repeat = repeatable(&sight, &request.request_id, &request)?;
        let record = request.record.unwrap_or_default();
        let name = self.name("record.name", &record.name)?;
        let kind = self.engine.shared().schema.kind(name.kind);
        let fields = fields_to_write(kind, "record.fields", &record.fields, request.update_mask.as_ref())?;
        let write = LocalWrite {
            basis: basis(&record.etag, &record.read_token)?,
            acting: acting(&request.acting_division)?,
            existence: if request.must_create { Existence::New } else { Existence::Any },
            ..sight.local_write(fields)
        };
        sight.check_write(&self.engine, &name, write.fields.iter().map(|f| f.0)).await?;
        let write = Write { name, action: WriteAction::Fields(write), request: repeat, traceparent };
        Ok(Response::new(self.write(&sight, write).await?))
    }

    async fn move_case(&self, request: Request<v1::MoveCaseRequest>) -> Result<Response<v1::Record>, Status> {
        let sight = Sight::of(self.engine.shared(), request.extensions())?;
        let traceparent = trace::of_request(request.metadata());
        let request = request.into_inner();
        let repeat = repeatable(&sight, &request.request_id, &request)?;
        let name = self.name("name", &request.name)?;
        if self.engine.shared().schema.kind(name.kind).rule.name != "case" {
            return Err(status::invalid("name", "name: only cases move"));
        }
        let known = |n| v1::Move::try_from(n).ok().filter(|_| n != 0).map(|value| value.as_str_name());
        writes::value_of("move", request.r#move, known)?;
        let action = WriteAction::Move {
            action: request.r#move(),
            acting: acting(&request.acting_division)?,
            to_division: optional_division("to_division", &request.to_division)?,
            to_unit: request.to_unit,
            reason: request.reason,
            outcome: request.outcome,
            basis: basis(&request.etag, &Bytes::new())?,
            purpose: sight.purpose(),
            mandate: sight.mandate(),
        };
        sight.check_write(&self.engine, &name, []).await?;
        Ok(Response::new(self.write(&sight, Write { name, action, request: repeat, traceparent }).await?))
    }

    async fn erase_record(
        &self,
        request: Request<v1::EraseRecordRequest>,
    ) -> Result<Response<v1::ErasureReport>, Status> {
        let (_, extensions, request) = request.into_parts();
        Ok(Response::new(erasure::erase(&self.engine, &self.links, &extensions, request).await?))
    }

    async fn get_erasure(
        &self,
        request: Request<v1::GetErasureRequest>,
    ) -> Result<Response<v1::ErasureReport>, Status> {
        let (_, extensions, request) = request.into_parts();
        Ok(Response::new(erasure::progress(&self.engine, &self.links, &extensions, &request).await?))
    }

    async fn import_records(
        &self,
        request: Request<Streaming<v1::ImportRecordsRequest>>,
    ) -> Result<Response<v1::ImportRecordsResponse>, Status> {
        caller::operator(request.extensions())?;
        let mut stream = request.into_inner();
        let first = stream.next().await.transpose()?.and_then(|m| m.content);
        let Some(v1::import_records_request::Content::Header(header)) = first else {
            return Err(status::invalid("header", "the first message of an import is its header"));
        };
        let ledger = self.ledger(&header)?;
        let mut taken = v1::ImportRecordsResponse::default();
        let mut rows = Rows::default();
        let mut begun = None;
        while let Some(message) = stream.next().await.transpose()? {
            let Some(v1::import_records_request::Content::Rows(more)) = message.content else { continue };
            for row in more.rows {
                if let Some(piece) = rows.push(row) {
                    begun = Some(self.take(&ledger, begun, piece, &mut taken).await?);
                }
            }
        }
        let begun = self.take(&ledger, begun, rows.take(), &mut taken).await?;
        if header.full {
            taken.vanished = self.vanished(begun).await?;
        }
        Ok(Response::new(taken))
    }
}

/// Rows that wait until there are enough to go in together.
#[derive(Default)]
struct Rows {
    waiting: Vec<v1::ImportRow>,
    bytes: usize,
}

impl Rows {
    /// Adds a row; gives all that wait where they are enough.
    fn push(&mut self, row: v1::ImportRow) -> Option<Vec<v1::ImportRow>> {
        self.bytes += row.encoded_len();
        self.waiting.push(row);
        (self.waiting.len() >= ROWS_AT_ONCE || self.bytes >= ROWS_BYTES_ENOUGH).then(|| self.take())
    }

    fn take(&mut self) -> Vec<v1::ImportRow> {
        self.bytes = 0;
        std::mem::take(&mut self.waiting)
    }
}

/// The ledger that an import belongs to.
struct Ledger {
    kind: crate::schema::KindId,
    source: Arc<str>,
}

impl Records {
    fn ledger(&self, header: &v1::ImportHeader) -> Result<Ledger, Status> {
        let kind = page::kind(&self.engine.shared().schema, "header.kind", &header.kind)?;
        let source = header.source.trim();
        let fits = (1..=64).contains(&source.chars().count()) && !source.chars().any(char::is_control);
        if !fits || source.starts_with(PARTNER_PURPOSE) {
            let text = format!(
                "source: the ledger's name, 1 to 64 characters, not beginning with {PARTNER_PURPOSE}"
            );
            return Err(status::invalid("source", text));
        }
        Ok(Ledger { kind: kind.id, source: source.into() })
    }

    async fn take(
        &self,
        ledger: &Ledger,
        begun: Option<Begun>,
        rows: Vec<v1::ImportRow>,
        taken: &mut v1::ImportRecordsResponse,
    ) -> Result<Begun, Status> {
        let import = Import { kind: ledger.kind, source: ledger.source.to_string(), begun, rows };
        let schema = &self.engine.shared().schema;
        let progress =
            self.engine.import(import).await.map_err(|e| status::of_engine(schema, ledger.kind, &e))?;
        let ImportProgress { begun, problems, .. } = progress;
        taken.created_count += progress.created_count;
        taken.changed_count += progress.changed_count;
        taken.unchanged_count += progress.unchanged_count;
        taken.conflict_count += progress.conflict_count;
        taken.held_count += progress.held_count;
        taken.erased_count += progress.erased_count;
        let room = PROBLEMS_MAX.saturating_sub(taken.problems.len());
        taken.problems.extend(problems.into_iter().take(room));
        Ok(begun)
    }

    async fn vanished(&self, begun: Begun) -> Result<Vec<String>, Status> {
        let shared = self.engine.shared();
        let vanished = shared.store.vanished(begun.source, begun.generation, "", VANISHED_MAX).await;
        let vanished = vanished.map_err(|e| status::of_store(&e))?;
        Ok(vanished.iter().map(|row| row.name.display(&shared.schema).to_string()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_in_together_by_number_or_by_size() {
        let mut rows = Rows::default();
        let small = || v1::ImportRow { key: "1".into(), ..v1::ImportRow::default() };
        assert!((1..ROWS_AT_ONCE).all(|_| rows.push(small()).is_none()));
        assert_eq!(rows.push(small()).map(|piece| piece.len()), Some(ROWS_AT_ONCE));
        let large = || v1::ImportRow { key: "1".repeat(ROWS_BYTES_ENOUGH / 2), ..small() };
        assert!(rows.push(large()).is_none());
        assert_eq!(rows.push(large()).map(|piece| piece.len()), Some(2));
        assert!(rows.take().is_empty());
    }
}
