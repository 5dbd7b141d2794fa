//! What `GridService`, `CaseService` and `CameraService` have in common: reading, listing, writing, deleting, and
//! writing many, of one kind with a message of its own.

use std::marker::PhantomData;
use std::sync::Arc;

use guantong_proto::rules::fields;
use guantong_proto::v1;
use prost::Message;
use tonic::{Request, Status};

use super::list::{Asked, Condition, Query};
use super::sight::Sight;
use super::typed::{self, Typed};
use super::{page, status, trace, writes};
use crate::division::Division;
use crate::engine::{Answer, Engine, Write, WriteAction};
use crate::ingest::local::{Existence, LocalWrite, etag};
use crate::record::{NameError, RecordName, codec, raw};
use crate::schema::Kind;

/// Items of one batch.
const BATCH_MAX: usize = 500;

/// Records of one kind.
pub(super) struct Resources<T> {
    engine: Engine,
    of: PhantomData<fn() -> T>,
}

/// A request, and who sent it.
pub(super) struct Call<R> {
    pub(super) sight: Sight,
    pub(super) traceparent: Option<Arc<str>>,
    pub(super) request: R,
}

/// What a write of one record says beside its fields.
pub(super) struct Update<'r, T> {
    pub(super) record: Option<&'r T>,
    pub(super) mask: Option<&'r prost_types::FieldMask>,
    pub(super) allow_missing: bool,
    pub(super) acting_division: &'r str,
    pub(super) request_id: &'r str,
}

/// What a request for a new record says.
pub(super) struct Create<'r, T> {
    pub(super) parent: &'r str,
    pub(super) id: &'r str,
    pub(super) record: Option<&'r T>,
    pub(super) acting_division: &'r str,
    pub(super) request_id: &'r str,
}

impl<T: Typed> Resources<T> {
    pub(super) fn new(engine: Engine) -> Resources<T> {
        Resources { engine, of: PhantomData }
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(super) fn kind(&self) -> Result<&Kind, Status> {
        page::kind(&self.engine.shared().schema, "name", T::KIND)
    }

    /// Takes a request apart; callers without a grant get no further.
    pub(super) fn call<R>(&self, request: Request<R>) -> Result<Call<R>, Status> {
        let sight = Sight::of(self.engine.shared(), request.extensions())?;
        let traceparent = trace::of_request(request.metadata());
        Ok(Call { sight, traceparent, request: request.into_inner() })
    }

    /// The name of a record of this kind.
    pub(super) fn name(&self, field: &str, name: &str) -> Result<RecordName, Status> {
        let parsed = self.engine.name(name).map_err(|e| status::bad_name(field, &e))?;
        let kind = self.kind()?;
        if parsed.kind == kind.id {
            return Ok(parsed);
        }
        let text = format!("{field}: write divisions/{{12-digit division}}/{}/{{id}}", kind.rule.collection);
        Err(status::invalid(field, text))
    }

    /// One record, by its name.
    pub(super) async fn get(&self, sight: &Sight, name: &RecordName) -> Result<T, Status> {
        let (listed, record) = sight.read(&self.engine, name).await?;
        Ok(typed::shown(&sight.view(self.engine.shared(), name, &record), listed.updated_ms))
    }

    /// One page of a list.
    pub(super) async fn list(
        &self,
        sight: &Sight,
        parent: &str,
        asked: Asked,
        conditions: Vec<Condition>,
    ) -> Result<(Vec<T>, String), Status> {
        let shared = self.engine.shared();
        let kind = self.kind()?;
        sight.check_kind(kind)?;
        let scope = sight.part_of("parent", page::parent("parent", parent)?)?;
        let query = Query::new(shared, sight, kind, scope, asked, conditions)?;
        let (found, next_page_token) = query.page().await?;
        let shown =
            found.iter().map(|(name, record, ms)| typed::shown(&sight.view(shared, name, record), *ms));
        Ok((shown.collect(), next_page_token))
    }

    /// Makes a record.
    pub(super) async fn create<R: Message>(&self, call: &Call<R>, create: Create<'_, T>) -> Result<T, Status>
    where
        T: Clone,
    {
        let kind = self.kind()?;
        let home = page::parent("parent", create.parent)?;
        let Some(record) = create.record.cloned() else {
            let text = format!("{}: say what the new record holds (请填写记录内容)", T::KIND);
            return Err(status::invalid(T::KIND, text));
        };
        let id = match (create.id, record.code()) {
            ("", Some(code)) => code.to_owned(),
            ("", None) => self.draw_id(&call.sight, home, create.request_id),
            (id, _) => id.to_owned(),
        };
        let name = RecordName::new(home, kind.id, &id).map_err(|error| match error {
            NameError::Home(..) => status::bad_name("parent", &error),
            _ => status::bad_name(&format!("{}_id", T::KIND), &error),
        })?;
        let write = self.local_write(
            &call.sight,
            Update {
                record: Some(&record),
                mask: None,
                allow_missing: true,
                acting_division: create.acting_division,
                request_id: create.request_id,
            },
        )?;
        let write = LocalWrite { existence: Existence::New, ..write };
        self.write(call, name, WriteAction::Fields(write), create.request_id).await
    }

    /// An id for a record that has no code; the retry of a request draws the same.
    fn draw_id(&self, sight: &Sight, home: Division, request_id: &str) -> String {
        if request_id.is_empty() {
            let environment = self.engine.shared().environment;
            return format!("{:016x}{:016x}", (environment.random)(), (environment.random)());
        }
        let seed = format!("{home} {} {request_id}", sight.purpose());
        blake3::hash(seed.as_bytes()).to_hex()[..32].to_owned()
    }

    /// Writes fields of a record.
    pub(super) async fn update<R: Message>(&self, call: &Call<R>, update: Update<'_, T>) -> Result<T, Status>
    where
        T: Clone,
    {
        let name = self.name(&format!("{}.name", T::KIND), update.record.map_or("", T::name))?;
        let request_id = update.request_id;
        let write = self.local_write(&call.sight, update)?;
        self.write(call, name, WriteAction::Fields(write), request_id).await
    }

    /// Marks a record as deleted.
    pub(super) async fn delete<R: Message>(
        &self,
        call: &Call<R>,
        name: &str,
        etag: &str,
        acting_division: &str,
        request_id: &str,
    ) -> Result<T, Status> {
        let name = self.name("name", name)?;
        let mut value = Vec::new();
        raw::put_varint(&mut value, u64::from(fields::DELETED) << 3);
        raw::put_varint(&mut value, 1);
        let write = LocalWrite {
            basis: writes::basis(etag, &bytes::Bytes::new())?,
            acting: writes::acting(acting_division)?,
            existence: Existence::Known,
            ..call.sight.local_write(vec![(fields::DELETED, value.into())])
        };
        self.write(call, name, WriteAction::Fields(write), request_id).await
    }

    /// Does a write, once, and shows what the record is then.
    pub(super) async fn write<R: Message>(
        &self,
        call: &Call<R>,
        name: RecordName,
        action: WriteAction,
        request_id: &str,
    ) -> Result<T, Status> {
        let request = writes::repeatable(&call.sight, request_id, &call.request)?;
        call.sight.check_write(&self.engine, &name, written(&action)).await?;
        let write = Write { name: name.clone(), action, request, traceparent: call.traceparent.clone() };
        let done = self.engine.write(write).await;
        done.map_err(|e| status::of_record(&self.engine.shared().schema, &name, &e))?;
        self.get(&call.sight, &name).await
    }

    fn local_write(&self, sight: &Sight, update: Update<'_, T>) -> Result<LocalWrite, Status>
    where
        T: Clone,
    {
        let record = update.record.cloned().unwrap_or_default();
        let basis = writes::basis(record.etag(), &bytes::Bytes::new())?;
        let fields = writes::fields_to_write(self.kind()?, T::KIND, &typed::fields(record), update.mask)?;
        Ok(LocalWrite {
            basis,
            acting: writes::acting(update.acting_division)?,
            existence: if update.allow_missing { Existence::Any } else { Existence::Known },
            register: true,
            ..sight.local_write(fields)
        })
    }

    /// Writes many records, each by itself.
    pub(super) async fn batch<R: Message, I: Message>(
        &self,
        call: &Call<R>,
        parent: &str,
        items: &[I],
        update: impl Fn(&I) -> Update<'_, T>,
    ) -> Result<Vec<v1::BatchWriteResult>, Status>
    where
        T: Clone,
    {
        let parent = page::parent("parent", parent)?;
        if items.len() > BATCH_MAX {
            let text = format!("requests: {} items; send at most {BATCH_MAX} at once", items.len());
            return Err(status::invalid("requests", text));
        }
        let mut results: Vec<v1::BatchWriteResult> = Vec::with_capacity(items.len());
        let mut prepared: Vec<(usize, Write)> = Vec::with_capacity(items.len());
        for (n, item) in items.iter().enumerate() {
            let name = update(item).record.map_or_else(String::new, |record| record.name().to_owned());
            let write = self.prepare(call, parent, item, update(item));
            let problem = write.map(|write| prepared.push((n, write))).err();
            let problem = problem.map(|refused| status::problem(&refused));
            results.push(v1::BatchWriteResult { name, problem, ..v1::BatchWriteResult::default() });
        }
        let wanted = prepared.iter().map(|(_, write)| (&write.name, written(&write.action)));
        let allowed = call.sight.check_writes(&self.engine, wanted.collect()).await?;
        let (mut places, mut sent) = (Vec::new(), Vec::new());
        for ((n, write), allowed) in prepared.into_iter().zip(allowed) {
            match allowed {
                Ok(()) => {
                    places.push((n, write.name.clone()));
                    sent.push(write);
                }
                Err(refused) => results[n].problem = Some(status::problem(&refused)),
            }
        }
        let schema = &self.engine.shared().schema;
        let answers = if sent.is_empty() { Vec::new() } else { self.engine.write_many(sent).await };
        let mut done = Vec::with_capacity(answers.len());
        for ((n, name), answer) in places.into_iter().zip(answers) {
            match answer {
                Ok(answer) => done.push((n, answer)),
                Err(error) => {
                    results[n].problem = Some(status::problem(&status::of_record(schema, &name, &error)));
                }
            }
        }
        self.conclude(&done, &mut results).await?;
        Ok(results)
    }

    /// One item of a batch as a write, or why it cannot be one.
    fn prepare<R: Message, I: Message>(
        &self,
        call: &Call<R>,
        parent: Division,
        item: &I,
        update: Update<'_, T>,
    ) -> Result<Write, Status>
    where
        T: Clone,
    {
        let field = format!("{}.name", T::KIND);
        let name = self.name(&field, update.record.map_or("", T::name))?;
        if !parent.contains(name.home) {
            let text = format!("{field}: {} does not lie inside the parent {parent}", name.home);
            return Err(status::invalid(&field, text));
        }
        let request = writes::repeatable(&call.sight, update.request_id, item)?;
        let action = WriteAction::Fields(self.local_write(&call.sight, update)?);
        Ok(Write { name, action, request, traceparent: call.traceparent.clone() })
    }

    /// Says of each item what became of it.
    async fn conclude(
        &self,
        done: &[(usize, Answer)],
        results: &mut [v1::BatchWriteResult],
    ) -> Result<(), Status> {
        let keys: Vec<i64> = done.iter().map(|(_, answer)| answer.key).collect();
        let listed = self.engine.shared().store.listed(&keys).await.map_err(|e| status::of_store(&e))?;
        let mut etags = std::collections::HashMap::with_capacity(listed.len());
        for record in listed {
            let state = codec::decode(record.state).map_err(|e| status::broken(&e.to_string()))?;
            etags.insert(record.key, etag(&state));
        }
        for result in results.iter_mut().filter(|result| result.problem.is_some()) {
            result.outcome = v1::BatchWriteOutcome::Refused.into();
        }
        for (n, answer) in done {
            let outcome = match (answer.written.created, answer.written.changed) {
                (true, _) => v1::BatchWriteOutcome::Created,
                (false, true) => v1::BatchWriteOutcome::Changed,
                (false, false) => v1::BatchWriteOutcome::Unchanged,
            };
            results[*n].outcome = outcome.into();
            results[*n].etag = etags.get(&answer.key).cloned().unwrap_or_default();
        }
        Ok(())
    }
}

/// The fields that an action writes by hand.
fn written(action: &WriteAction) -> Vec<u32> {
    match action {
        WriteAction::Fields(write) => write.fields.iter().map(|field| field.0).collect(),
        WriteAction::Erase(erase) => erase.fields.clone(),
        WriteAction::Move { .. } => Vec::new(),
    }
}
