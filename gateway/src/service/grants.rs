//! `GrantService`: what partners may, as operators say it.

use guantong_proto::v1;
use guantong_proto::v1::grant_service_server::GrantService;
use tonic::{Request, Response, Status};

use super::{caller, page, status, view};
use crate::casework;
use crate::division::Division;
use crate::engine::Engine;
use crate::grant::{Grant, Kinds, Level, Period, Rate, RateError, Units, is_partner_name};
use crate::ingest::changes::GrantRow;
use crate::schema::{Kind, KindId, Schema};

/// Units of one grant.
const UNITS_MAX: usize = 50;

pub(super) struct Grants {
    engine: Engine,
}

impl Grants {
    pub(super) fn new(engine: Engine) -> Grants {
        Grants { engine }
    }

    /// The grant that a partner has.
    fn held(&self, partner: &str) -> Result<GrantRow, Status> {
        let grants = self.engine.shared().grants();
        grants.get(partner).cloned().ok_or_else(|| status::not_found(&format!("grants/{partner}")))
    }
}

/// The partner of `grants/{partner}`.
fn partner<'n>(field: &str, name: &'n str) -> Result<&'n str, Status> {
    name.strip_prefix("grants/").filter(|partner| is_partner_name(partner)).ok_or_else(|| {
        let text = format!(
            "{field}: write grants/NAME; a name has 1 to 63 of the characters a-z 0-9 . - _ and begins with a letter \
             or digit"
        );
        status::invalid(field, text)
    })
}

/// A grant as callers see it.
fn shown(schema: &Schema, row: &GrantRow) -> v1::Grant {
    let level = match row.grant.level {
        Level::Aggregates => v1::GrantLevel::Aggregates,
        Level::Read => v1::GrantLevel::Read,
        Level::Write => v1::GrantLevel::Write,
    };
    let kinds = schema.kinds().iter().filter(|k| row.grant.kinds.contains(k.id));
    let kinds = kinds.filter(|_| row.grant.kinds != Kinds::ALL).map(|k| k.rule.name.to_owned());
    v1::Grant {
        name: format!("grants/{}", row.partner),
        scope: row.grant.scope.to_string(),
        kinds: kinds.collect(),
        level: level.into(),
        personal_data: row.grant.personal,
        update_time: Some(view::timestamp(row.granted_ms)),
        granted_by: row.granted_by.clone(),
        units: row.grant.units.codes().map(str::to_owned).collect(),
        rate: row.grant.rate.map(|rate| {
            let period = match rate.period() {
                Period::Second => v1::RatePeriod::Second,
                Period::Minute => v1::RatePeriod::Minute,
                Period::Hour => v1::RatePeriod::Hour,
            };
            let requests = i32::try_from(rate.requests()).unwrap_or(i32::MAX);
            v1::RequestRate { requests, period: period.into() }
        }),
    }
}

/// The rate of a request.
fn rate(asked: &v1::RequestRate) -> Result<Rate, RateError> {
    let period = match asked.period() {
        v1::RatePeriod::Second => Period::Second,
        v1::RatePeriod::Minute => Period::Minute,
        v1::RatePeriod::Hour => Period::Hour,
        v1::RatePeriod::Unspecified => return Err(RateError::Form),
    };
    Rate::new(u32::try_from(asked.requests).map_err(|_| RateError::Requests)?, period)
}

/// What is wrong with the units of a grant that goes so far and covers these kinds.
fn wrong_units(schema: &Schema, units: &[String], level: Option<Level>, kinds: Kinds) -> Option<String> {
    let handled = |kind: &Kind| kind.roles.lifecycle.is_some() && kinds.contains(kind.id);
    if units.is_empty() {
        return None;
    }
    if level.is_some_and(|level| level < Level::Write) || !schema.kinds().iter().any(handled) {
        let text = "units handle cases, which needs the level write and the kind case (部门须与事件的读写授权一并授予)";
        return Some(text.into());
    }
    if units.len() > UNITS_MAX {
        return Some(format!("at most {UNITS_MAX}; `*` stands for every unit"));
    }
    let wrong = units.iter().any(|unit| !casework::is_code(unit));
    wrong.then(|| {
        "a unit's code has 1 to 64 bytes without blanks or control characters (部门代码格式不正确)".into()
    })
}

/// What a request grants. Everything that is wrong is named at once.
fn granted(schema: &Schema, own: Division, grant: &v1::Grant) -> Result<Grant, Status> {
    let mut wrong = Vec::new();
    let mut refuse = |field: &str, text: String| wrong.push((format!("grant.{field}"), text));
    let scope = Division::parse(&grant.scope).map_err(|e| refuse("scope", format!("grant.scope: {e}"))).ok();
    let scope = scope.filter(|scope| {
        let inside = own.contains(*scope);
        if !inside {
            refuse("scope", format!("grant.scope: {scope} lies outside this node's division {own}"));
        }
        inside
    });
    let level = match grant.level() {
        v1::GrantLevel::Aggregates => Some(Level::Aggregates),
        v1::GrantLevel::Read => Some(Level::Read),
        v1::GrantLevel::Write => Some(Level::Write),
        v1::GrantLevel::Unspecified => {
            refuse("level", "grant.level: say aggregates, read or write".into());
            None
        }
    };
    let mut kinds: Vec<KindId> = Vec::new();
    for name in &grant.kinds {
        match schema.kind_named(name) {
            Some(kind) => kinds.push(kind.id),
            None => {
                let known: Vec<&str> = schema.kinds().iter().map(|k| k.rule.name).collect();
                let text = format!("grant.kinds: there is no kind `{name}`; known: {}", known.join(", "));
                refuse("kinds", text);
            }
        }
    }
    let kinds = if grant.kinds.is_empty() { Kinds::ALL } else { Kinds::of(kinds) };
    if let Some(text) = wrong_units(schema, &grant.units, level, kinds) {
        refuse("units", format!("grant.units: {text}"));
    }
    let rate = grant.rate.as_ref().map(rate).transpose();
    let rate = rate.unwrap_or_else(|error| {
        refuse("rate", format!("grant.rate: {error}"));
        None
    });
    let units = Units::of(grant.units.iter().map(String::as_str));
    match (scope, level) {
        (Some(scope), Some(level)) if wrong.is_empty() => {
            Ok(Grant { scope, kinds, level, personal: grant.personal_data, units, rate })
        }
        _ => Err(status::invalid_fields(wrong)),
    }
}

#[tonic::async_trait]
impl GrantService for Grants {
    async fn list_grants(
        &self,
        request: Request<v1::ListGrantsRequest>,
    ) -> Result<Response<v1::ListGrantsResponse>, Status> {
        caller::operator(request.extensions())?;
        let request = request.into_inner();
        let size = page::size(request.page_size)?;
        let after = page::after("grants", &request.page_token)?.unwrap_or_default();
        let shared = self.engine.shared();
        let grants = shared.grants();
        let listed: Vec<&GrantRow> = grants.values().filter(|row| row.partner > after).take(size).collect();
        let last = listed.last().filter(|_| listed.len() == size);
        let next_page_token = last.map(|row| page::token("grants", &row.partner)).unwrap_or_default();
        let grants = listed.into_iter().map(|row| shown(&shared.schema, row)).collect();
        Ok(Response::new(v1::ListGrantsResponse { grants, next_page_token }))
    }

    async fn get_grant(&self, request: Request<v1::GetGrantRequest>) -> Result<Response<v1::Grant>, Status> {
        let asked = partner("name", &request.get_ref().name)?;
        if caller::partner(request.extensions()) != Some(asked) {
            caller::operator(request.extensions())?;
        }
        Ok(Response::new(shown(&self.engine.shared().schema, &self.held(asked)?)))
    }

    async fn update_grant(
        &self,
        request: Request<v1::UpdateGrantRequest>,
    ) -> Result<Response<v1::Grant>, Status> {
        let granted_by = caller::operator(request.extensions())?.name();
        let request = request.into_inner();
        let asked = request.grant.unwrap_or_default();
        let name = partner("grant.name", &asked.name)?;
        let shared = self.engine.shared();
        let grant = granted(&shared.schema, shared.own(), &asked)?;
        if !request.allow_missing {
            self.held(name)?;
        }
        let granted_ms = (shared.environment.now_ms)();
        let row = GrantRow { partner: name.to_owned(), grant, granted_ms, granted_by };
        let (grant, by) = (&row.grant, &row.granted_by);
        tracing::info!(partner = name, scope = %grant.scope, level = ?grant.level, units = ?grant.units, rate = ?grant.rate, %by, "a grant was given (已授权)");
        let answer = shown(&shared.schema, &row);
        self.engine.set_grant(row).await.map_err(|e| status::unfinished(&e))?;
        Ok(Response::new(answer))
    }

    async fn delete_grant(&self, request: Request<v1::DeleteGrantRequest>) -> Result<Response<()>, Status> {
        let by = caller::operator(request.extensions())?.name();
        let name = partner("name", &request.get_ref().name)?;
        self.held(name)?;
        self.engine.revoke_grant(name).await.map_err(|e| status::unfinished(&e))?;
        tracing::info!(partner = name, %by, "a grant was taken away (已取消授权)");
        Ok(Response::new(()))
    }
}
