//! `ConflictService`: lists what stands side by side, and settles it by a write that names all values.

use guantong_proto::v1;
use guantong_proto::v1::conflict_service_server::ConflictService;
use tonic::{Request, Response, Status};

use super::{caller, page, status, trace, view};
use crate::division::Division;
use crate::engine::{Engine, Write, WriteAction};
use crate::ingest::local::{Authority, Basis, LocalWrite};
use crate::record::{Entry, FieldNumber, Record, RecordName, Register, codec};

pub(super) struct Conflicts {
    engine: Engine,
}

impl Conflicts {
    pub(super) fn new(engine: Engine) -> Conflicts {
        Conflicts { engine }
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

    async fn register(&self, name: &RecordName, field: FieldNumber) -> Result<Register, Status> {
        let shared = self.engine.shared();
        let found = shared.store.get(name).await.map_err(|e| status::of_store(&e))?;
        let shown = || name.display(&shared.schema).to_string();
        let loaded = found.ok_or_else(|| status::not_found(&shown()))?;
        let record = codec::decode(loaded.state).map_err(|e| status::broken(&e.to_string()))?;
        record.get(field).cloned().ok_or_else(|| status::not_found(&format!("{}/conflicts/{field}", shown())))
    }

    async fn open(
        &self,
        parent: Division,
        after: Option<String>,
        size: usize,
    ) -> Result<(Vec<v1::Conflict>, Option<String>), Status> {
        let shared = self.engine.shared();
        let after = after.map(|last| self.parse(&last)).transpose()?;
        let after = after.as_ref().map(|(name, field)| (name, *field));
        let listed =
            shared.store.conflicts(Some(parent), after, size).await.map_err(|e| status::of_store(&e))?;
        let mut conflicts = Vec::with_capacity(listed.len());
        for row in listed {
            let record = codec::decode(row.state).map_err(|e| status::broken(&e.to_string()))?;
            let register = record.get(row.field).cloned().unwrap_or_default();
            conflicts.push(view::conflict(&shared.schema, &row.name, row.field, &register));
        }
        let last = conflicts.last().filter(|_| conflicts.len() == size).map(|c| c.name.clone());
        Ok((conflicts, last))
    }

    async fn resolved(
        &self,
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
        let last = listed.last().filter(|_| listed.len() == size).map(|r| r.id.to_string());
        let mut conflicts = Vec::with_capacity(listed.len());
        for row in listed {
            let record = codec::decode(row.before).map_err(|e| status::broken(&e.to_string()))?;
            let register = record.get(row.field).cloned().unwrap_or_default();
            conflicts.push(v1::Conflict {
                resolve_time: Some(view::timestamp(row.resolved_ms)),
                ..view::conflict(&shared.schema, &row.name, row.field, &register)
            });
        }
        Ok((conflicts, last))
    }
}

#[tonic::async_trait]
impl ConflictService for Conflicts {
    async fn list_conflicts(
        &self,
        request: Request<v1::ListConflictsRequest>,
    ) -> Result<Response<v1::ListConflictsResponse>, Status> {
        caller::operator(request.extensions())?;
        let request = request.into_inner();
        let parent = page::parent("parent", &request.parent)?;
        let size = page::size(request.page_size)?;
        let query = format!("conflicts {parent} {}", request.resolved);
        let after = page::after(&query, &request.page_token)?;
        let (conflicts, last) = match request.resolved {
            false => self.open(parent, after, size).await?,
            true => self.resolved(parent, after, size).await?,
        };
        let next_page_token = last.map(|last| page::token(&query, &last)).unwrap_or_default();
        Ok(Response::new(v1::ListConflictsResponse { conflicts, next_page_token }))
    }

    async fn get_conflict(
        &self,
        request: Request<v1::GetConflictRequest>,
    ) -> Result<Response<v1::Conflict>, Status> {
        caller::operator(request.extensions())?;
        let (name, field) = self.parse(&request.get_ref().name)?;
        let register = self.register(&name, field).await?;
        Ok(Response::new(view::conflict(&self.engine.shared().schema, &name, field, &register)))
    }

    async fn resolve_conflict(
        &self,
        request: Request<v1::ResolveConflictRequest>,
    ) -> Result<Response<v1::Conflict>, Status> {
        caller::operator(request.extensions())?;
        let traceparent = trace::of_request(request.metadata());
        let request = request.into_inner();
        let (name, field) = self.parse(&request.name)?;
        let shared = self.engine.shared();
        let register = self.register(&name, field).await?;
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
        seen.set(field, Register::from_entries(values.into_iter().map(|e| Entry { value: None, ..e })));
        let acting = (!request.acting_division.is_empty()).then(|| Division::parse(&request.acting_division));
        let acting = acting.transpose().map_err(|e| status::invalid("acting_division", e.to_string()))?;
        let write = LocalWrite {
            basis: Basis::Token(seen),
            acting,
            authority,
            ..LocalWrite::of(vec![(field, value)])
        };
        let kind = name.kind;
        let write =
            Write { name: name.clone(), action: WriteAction::Fields(write), request: None, traceparent };
        self.engine.write(write).await.map_err(|e| status::of_engine(&shared.schema, kind, &e))?;
        let register = self.register(&name, field).await?;
        Ok(Response::new(view::conflict(&shared.schema, &name, field, &register)))
    }
}
