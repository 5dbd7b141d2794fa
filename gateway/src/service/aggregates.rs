//! `AggregateService`: figures for programs and people. It reads the question, asks `figures`, and says the answer with
//! comparisons and ranks; it counts nothing itself.

use guantong_proto::v1;
use guantong_proto::v1::aggregate_service_server::AggregateService;
use tonic::{Request, Response, Status};

use super::{caller, status, view};
use crate::engine::{Engine, Shared};
use crate::measure::{Dimension, Formula, MEASURES, Measure};

mod answer;
mod ask;

use ask::Asked;

pub(super) struct Aggregates {
    engine: Engine,
}

impl Aggregates {
    pub(super) fn new(engine: Engine) -> Aggregates {
        Aggregates { engine }
    }
}

/// Answers a question as of now.
async fn answered(shared: &Shared, asked: &Asked) -> Result<v1::QueryAggregatesResponse, Status> {
    let now_ms = (shared.environment.now_ms)();
    let figures = answer::figures(shared, asked, now_ms).await.map_err(|e| status::of_store(&e))?;
    let read_time = Some(view::timestamp(now_ms));
    let completeness = Some(completeness(shared, asked, now_ms));
    Ok(v1::QueryAggregatesResponse { figures, read_time, completeness })
}

/// From whom everything is in, of the divisions asked about, and who is late.
fn completeness(shared: &Shared, asked: &Asked, now_ms: u64) -> v1::Completeness {
    view::completeness(shared, &shared.completeness_of(&asked.query.divisions, now_ms))
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
        let asked = Asked::read(shared, &grant, request.get_ref().query.as_ref())?;
        Ok(Response::new(answered(shared, &asked).await?))
    }
}
