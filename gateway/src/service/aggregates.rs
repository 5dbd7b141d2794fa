//! `AggregateService`: figures for programs and people. It reads the question, asks `figures`, and says the answer with
//! comparisons and ranks; it counts nothing itself.

use std::sync::Arc;
use std::time::Duration;

use guantong_proto::v1;
use guantong_proto::v1::aggregate_service_server::AggregateService;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Extensions, Request, Response, Status};

use super::{Caller, caller, status, view};
use crate::engine::{Engine, Shared};
use crate::measure::{Dimension, Formula, MEASURES, Measure};
use crate::tabular::Format;

mod answer;
mod ask;
mod export;
mod recount;
mod stream;

pub(super) use recount::Recount;

use ask::{ANSWER_FIGURES_MAX, Asked, FILE_FIGURES_MAX};

/// Streams that run at a time.
const STREAMS_MAX: usize = 64;
/// Files that are written at a time: each is held in memory whole, up to a few hundred megabytes.
const EXPORTS_MAX: usize = 4;
/// Messages that wait for a slow receiver.
const WAITING_MAX: usize = 2;

pub(super) struct Aggregates {
    engine: Engine,
    stop: CancellationToken,
    streams: Arc<Semaphore>,
    exports: Arc<Semaphore>,
    /// Two recounts that repair would each add what is missing.
    recounts: Arc<Semaphore>,
}

impl Aggregates {
    pub(super) fn new(engine: Engine, stop: CancellationToken) -> Aggregates {
        let places = |most| Arc::new(Semaphore::new(most));
        let (streams, exports, recounts) = (places(STREAMS_MAX), places(EXPORTS_MAX), places(1));
        Aggregates { engine, stop, streams, exports, recounts }
    }

    /// Whoever holds it counts and repairs alone.
    pub(super) fn recounts(&self) -> Arc<Semaphore> {
        self.recounts.clone()
    }
}

fn place(semaphore: &Arc<Semaphore>, busy: &str) -> Result<OwnedSemaphorePermit, Status> {
    semaphore.clone().try_acquire_owned().map_err(|_| status::busy(busy, Duration::from_secs(10)))
}

/// Who calls, to be kept beyond the call.
fn kept(extensions: &Extensions) -> Extensions {
    let mut kept = Extensions::new();
    if let Some(caller) = extensions.get::<Caller>() {
        kept.insert(caller.clone());
    }
    kept
}

/// Answers a question as of now.
async fn answered(shared: &Shared, asked: &Asked) -> Result<v1::QueryAggregatesResponse, Status> {
    let now_ms = (shared.environment.now_ms)();
    let figures = answer::figures(shared, asked, now_ms).await.map_err(|e| status::of_store(&e))?;
    let missed = answer::missed(shared, asked, now_ms).await.map_err(|e| status::of_store(&e))?;
    let known = shared.completeness_of(&asked.query.divisions, now_ms);
    let completeness = v1::Completeness {
        missed_snapshots: view::missed(shared, &missed),
        missed_snapshot_count: missed.count as u64,
        ..view::completeness(shared, &known)
    };
    let (read_time, completeness) = (Some(view::timestamp(now_ms)), Some(completeness));
    Ok(v1::QueryAggregatesResponse { figures, read_time, completeness })
}

fn dimension(dimension: Dimension) -> v1::MeasureDimension {
    let classes = dimension.classes().into_iter();
    let class = |c: crate::measure::Class| v1::MeasureClass { name: c.name.into(), label: c.label.into() };
    v1::MeasureDimension {
        name: dimension.name().into(),
        label: dimension.label().into(),
        classes: classes.map(class).collect(),
    }
}

fn measure(measure: &Measure) -> v1::Measure {
    let kind = match measure.formula {
        Formula::Flow(_) => v1::MeasureKind::Flow,
        Formula::Stock(_) | Formula::Balance { .. } => v1::MeasureKind::Stock,
        Formula::Rate { flow: true, .. } => v1::MeasureKind::FlowRate,
        Formula::Rate { .. } => v1::MeasureKind::StockRate,
    };
    let (basis, basis_label) = measure.formula.basis();
    v1::Measure {
        name: measure.name.into(),
        label: measure.label.into(),
        unit: measure.unit.into(),
        kind: kind.into(),
        meaning: measure.meaning.into(),
        meaning_label: measure.meaning_label.into(),
        basis: basis.into(),
        basis_label: basis_label.into(),
        dimensions: measure.dimensions().into_iter().map(dimension).collect(),
    }
}

#[tonic::async_trait]
impl AggregateService for Aggregates {
    type StreamAggregatesStream = ReceiverStream<Result<v1::StreamAggregatesResponse, Status>>;
    type ExportAggregatesStream = ReceiverStream<Result<v1::ExportAggregatesResponse, Status>>;
    type RecountAggregatesStream = ReceiverStream<Result<v1::RecountAggregatesResponse, Status>>;

    async fn list_measures(
        &self,
        request: Request<v1::ListMeasuresRequest>,
    ) -> Result<Response<v1::ListMeasuresResponse>, Status> {
        caller::granted(self.engine.shared(), request.extensions())?;
        Ok(Response::new(v1::ListMeasuresResponse { measures: MEASURES.iter().map(measure).collect() }))
    }

    async fn query_aggregates(
        &self,
        request: Request<v1::QueryAggregatesRequest>,
    ) -> Result<Response<v1::QueryAggregatesResponse>, Status> {
        let shared = self.engine.shared();
        let grant = caller::granted(shared, request.extensions())?;
        let asked = Asked::read(shared, &grant, request.get_ref().query.as_ref(), ANSWER_FIGURES_MAX)?;
        Ok(Response::new(answered(shared, &asked).await?))
    }

    async fn stream_aggregates(
        &self,
        request: Request<v1::StreamAggregatesRequest>,
    ) -> Result<Response<Self::StreamAggregatesStream>, Status> {
        let shared = self.engine.shared();
        let caller = kept(request.extensions());
        let grant = caller::granted(shared, &caller)?;
        let request = request.into_inner();
        Asked::read(shared, &grant, request.query.as_ref(), ANSWER_FIGURES_MAX)?;
        let interval = stream::interval(request.min_interval.as_ref())?;
        let place = place(&self.streams, "too many streams are open (查询流过多，请稍后重试)")?;
        let stream = stream::Stream {
            shared: shared.clone(),
            caller,
            query: request.query.unwrap_or_default(),
            interval,
            stop: self.stop.clone(),
        };
        let (out, answers) = mpsc::channel(WAITING_MAX);
        tokio::spawn(async move {
            stream.run(out).await;
            drop(place);
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn export_aggregates(
        &self,
        request: Request<v1::ExportAggregatesRequest>,
    ) -> Result<Response<Self::ExportAggregatesStream>, Status> {
        let shared = self.engine.shared();
        let grant = caller::granted(shared, request.extensions())?;
        let asked = Asked::read(shared, &grant, request.get_ref().query.as_ref(), FILE_FIGURES_MAX)?;
        let format = match request.get_ref().format() {
            v1::TableFormat::Csv => Format::Csv,
            v1::TableFormat::Parquet => Format::Parquet,
            v1::TableFormat::Unspecified => {
                return Err(status::invalid("format", "format: say CSV or Parquet (请指定格式)"));
            }
        };
        let place = place(&self.exports, "too many exports run (导出任务过多，请稍后重试)")?;
        let answer = answered(shared, &asked).await?;
        let (out, pieces) = mpsc::channel(WAITING_MAX);
        tokio::task::spawn_blocking(move || {
            // What fails here is the receiver, who is gone.
            let _ = export::write(&answer, asked.query.dimension, format, out);
            drop(place);
        });
        Ok(Response::new(ReceiverStream::new(pieces)))
    }

    async fn recount_aggregates(
        &self,
        request: Request<v1::RecountAggregatesRequest>,
    ) -> Result<Response<Self::RecountAggregatesStream>, Status> {
        caller::operator(request.extensions())?;
        let place = place(&self.recounts, "a recount is running already (正在重新统计)")?;
        let recount = recount::Recount::new(self.engine.clone(), request.get_ref().repair);
        let (out, progress) = mpsc::channel(WAITING_MAX);
        tokio::spawn(async move {
            recount.run(out).await;
            drop(place);
        });
        Ok(Response::new(ReceiverStream::new(progress)))
    }
}
