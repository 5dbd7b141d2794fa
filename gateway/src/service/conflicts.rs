//! `ConflictService`: lists what stands side by side, and settles it by a write that names all values.

use guantong_proto::v1;
use guantong_proto::v1::conflict_service_server::ConflictService;
use prost::Message;
use tonic::{Request, Response, Status};

use super::duplicates::Duplicates;
use super::sight::Sight;
use super::{page, status, trace, view};
use crate::division::Division;
use crate::engine::{Engine, Write, WriteAction};
use crate::ingest::local::{Authority, Basis, LocalWrite};
use crate::ingest::writers::WriterState;
use crate::record::{Entry, FieldNumber, Record, RecordName, Register, codec};

pub(super) struct Conflicts {
    engine: Engine,
    duplicates: Duplicates,
}

impl Conflicts {
    pub(super) fn new(engine: Engine) -> Conflicts {
        Conflicts { engine, duplicates: Duplicates::default() }
    }

    /// The record and field of a conflict's name.
    fn parse(&self, name: &str) -> Result<(RecordName, FieldNumber), Status> {
        let form = "name: write divisions/{division}/{kind}s/{id}/conflicts/{field}";
        let (record, field) = name.rsplit_once("/conflicts/").ok_or_else(|| status::invalid("name", form))?;
        let record = self.engine.name(record).map_err(|e| status::bad_name("name", &e))?;
        let kind = self.engine.shared().schema.kind(record.kind);
        let number = kind.field_named(field).map(|f| f.number).or_else(|| field.parse().ok());
        Ok((record, number.ok_or_else(|| status::invalid("name", form))?))
    }

    /// A field of a record that the caller asks for by name.
    async fn register(
        &self,
        sight: &Sight,
        name: &RecordName,
        field: FieldNumber,
    ) -> Result<Register, Status> {
        let shared = self.engine.shared();
        let (_, record) = sight.read(&self.engine, name).await?;
        sight.check_field(shared.schema.kind(name.kind), field)?;
        let shown = || name.display(&shared.schema).to_string();
        record.get(field).cloned().ok_or_else(|| status::not_found(&format!("{}/conflicts/{field}", shown())))
    }

    /// Whom this store writes as.
    async fn writers(&self) -> Result<Vec<WriterState>, Status> {
        self.engine.shared().store.writers().await.map_err(|e| status::of_store(&e))
    }

    async fn open(
        &self,
        sight: &Sight,
        parent: Division,
        after: Option<String>,
        size: usize,
    ) -> Result<(Vec<v1::Conflict>, Option<String>), Status> {
        let shared = self.engine.shared();
        let after = after.map(|last| self.parse(&last)).transpose()?;
        let after = after.as_ref().map(|(name, field)| (name, *field));
        let listed =
            shared.store.conflicts(Some(parent), after, size).await.map_err(|e| status::of_store(&e))?;
        let mut more = listed.len() == size;
        let writers = self.writers().await?;
        let (mut answer, mut last) = (Answer::default(), None);
        for row in listed {
            let record = codec::decode(row.state).map_err(|e| status::broken(&e.to_string()))?;
            let kind = shared.schema.kind(row.name.kind);
            if sight.sees(kind, &row.name, &record) && sight.shows(kind, row.field) {
                let register = record.get(row.field).cloned().unwrap_or_default();
                let conflict = view::conflict(&shared.schema, &row.name, row.field, &register, &writers);
                if !answer.takes(conflict) {
                    more = true;
                    break;
                }
            }
            last = Some(view::conflict_name(&shared.schema, &row.name, row.field));
        }
        Ok((answer.conflicts, last.filter(|_| more)))
    }

    async fn resolved(
        &self,
        sight: &Sight,
        parent: Division,
        before: Option<String>,
        size: usize,
    ) -> Result<(Vec<v1::Conflict>, Option<String>), Status> {
        let shared = self.engine.shared();
        let before = before.map(|b| b.parse::<i64>()).transpose();
        let before =
            before.map_err(|_| status::invalid("page_token", "page_token: take it from an answer"))?;
        let listed =
            shared.store.resolutions(Some(parent), before, size).await.map_err(|e| status::of_store(&e))?;
        let mut more = listed.len() == size;
        let writers = self.writers().await?;
        let (mut answer, mut last) = (Answer::default(), None);
        for row in listed {
            let kind = shared.schema.kind(row.name.kind);
            if sight.sees_home(kind, row.name.home) && sight.shows(kind, row.field) {
                let record = codec::decode(row.before).map_err(|e| status::broken(&e.to_string()))?;
                let register = record.get(row.field).cloned().unwrap_or_default();
                let taken = answer.takes(v1::Conflict {
                    resolve_time: Some(view::timestamp(row.resolved_ms)),
                    ..view::conflict(&shared.schema, &row.name, row.field, &register, &writers)
                });
                if !taken {
                    more = true;
                    break;
                }
            }
            last = Some(row.id.to_string());
        }
        Ok((answer.conflicts, last.filter(|_| more)))
    }
}

/// The conflicts of one page, which ends before clients would refuse it.
#[derive(Default)]
struct Answer {
    conflicts: Vec<v1::Conflict>,
    bytes: usize,
}

impl Answer {
    /// Takes a conflict in, unless the page is full without it. The first always goes in, or a list would never end.
    fn takes(&mut self, conflict: v1::Conflict) -> bool {
        let bytes = self.bytes + conflict.encoded_len();
        if bytes > page::BYTES_ENOUGH && !self.conflicts.is_empty() {
            return false;
        }
        self.bytes = bytes;
        self.conflicts.push(conflict);
        true
    }
}

#[tonic::async_trait]
impl ConflictService for Conflicts {
    async fn list_conflicts(
        &self,
        request: Request<v1::ListConflictsRequest>,
    ) -> Result<Response<v1::ListConflictsResponse>, Status> {
        let sight = Sight::of(self.engine.shared(), request.extensions())?;
        let request = request.into_inner();
        let parent = sight.part_of("parent", page::parent("parent", &request.parent)?)?;
        sight.check_records()?;
        let size = page::size(request.page_size)?;
        let query = format!("conflicts {parent} {}", request.resolved);
        let after = page::after(&query, &request.page_token)?;
        let (conflicts, last) = match request.resolved {
            false => self.open(&sight, parent, after, size).await?,
            true => self.resolved(&sight, parent, after, size).await?,
        };
        let next_page_token = last.map(|last| page::token(&query, &last)).unwrap_or_default();
        Ok(Response::new(v1::ListConflictsResponse { conflicts, next_page_token }))
    }

    async fn get_conflict(
        &self,
        request: Request<v1::GetConflictRequest>,
    ) -> Result<Response<v1::Conflict>, Status> {
        let sight = Sight::of(self.engine.shared(), request.extensions())?;
        let (name, field) = self.parse(&request.get_ref().name)?;
        let register = self.register(&sight, &name, field).await?;
        let (schema, writers) = (&self.engine.shared().schema, self.writers().await?);
        Ok(Response::new(view::conflict(schema, &name, field, &register, &writers)))
    }

    async fn resolve_conflict(
        &self,
        request: Request<v1::ResolveConflictRequest>,
    ) -> Result<Response<v1::Conflict>, Status> {
        let sight = Sight::of(self.engine.shared(), request.extensions())?;
        let traceparent = trace::of_request(request.metadata());
        let request = request.into_inner();
        let (name, field) = self.parse(&request.name)?;
        let shared = self.engine.shared();
        sight.check_write(&self.engine, &name, [field]).await?;
        let register = self.register(&sight, &name, field).await?;
        if !request.etag.is_empty() && request.etag != view::conflict_etag(field, &register) {
            return Err(status::stale("the conflict was changed meanwhile; look at it again"));
        }
        let values = view::conflict_entries(shared.schema.kind(name.kind), &name, field, &register);
        if values.len() < 2 {
            return Err(status::stale("there is no conflict any more; look at the record again"));
        }
        let (value, authority) = if request.fields.is_empty() {
            let kept = values.get(request.keep as usize).and_then(|e| e.value.clone());
            let text = format!("keep: the conflict has values 0 to {}", values.len() - 1);
            (kept.ok_or_else(|| status::invalid("keep", text))?, Authority::Resolution)
        } else {
            (request.fields, Authority::Plain)
        };
        // Exactly the values that were seen are replaced; one that comes in meanwhile stays beside.
        let mut seen = Record::default();
        seen.set(field, Register::from_entries(values.into_iter().map(|e| Entry::seen(e.writer, e.stamp))));
        let acting = (!request.acting_division.is_empty()).then(|| Division::parse(&request.acting_division));
        let acting = acting.transpose().map_err(|e| status::invalid("acting_division", e.to_string()))?;
        let write = LocalWrite {
            basis: Basis::Token(seen),
            acting,
            authority,
            ..sight.local_write(vec![(field, value)])
        };
        let write =
            Write { name: name.clone(), action: WriteAction::Fields(write), request: None, traceparent };
        self.engine.write(write).await.map_err(|e| status::of_record(&shared.schema, &name, &e))?;
        let register = self.register(&sight, &name, field).await?;
        let writers = self.writers().await?;
        Ok(Response::new(view::conflict(&shared.schema, &name, field, &register, &writers)))
    }

    async fn list_duplicates(
        &self,
        request: Request<v1::ListDuplicatesRequest>,
    ) -> Result<Response<v1::ListDuplicatesResponse>, Status> {
        let shared = self.engine.shared();
        let sight = Sight::of(shared, request.extensions())?;
        Ok(Response::new(self.duplicates.list(shared, &sight, request.get_ref()).await?))
    }
}
