//! Lists with conditions, page by page. The condition that leads to the fewest records says which way the list goes;
//! the others are looked up in each record. A page costs a bounded number of records at any depth: where few of them
//! meet the conditions it is shorter than asked for, and the next one goes on.

use std::collections::HashMap;

use guantong_proto::v1;
use prost::Message;
use tonic::Status;

use super::sight::Sight;
use super::{page, status, writes};
use crate::calendar;
use crate::division::Division;
use crate::engine::Shared;
use crate::facet::{self, Facet};
use crate::record::reader::Reader;
use crate::record::{FieldNumber, RecordName, codec};
use crate::schema::Kind;
use crate::store::{Listed, Position, Way};

mod token;

/// Records looked at for one page, unless more are asked for.
const EXAMINED_MAX: usize = 400;
/// Stretches read for one page.
const STRETCHES_MAX: usize = 6;
/// Values of one condition.
pub(super) const VALUES_MAX: usize = 50;

/// One condition on a record.
#[derive(Clone, Debug)]
pub(super) enum Condition {
    /// A field has one of these numbers.
    Numbers(FieldNumber, Vec<u64>),
    /// A part of a field has one of these numbers.
    Parts(FieldNumber, FieldNumber, Vec<u64>),
    /// A field is one of these texts.
    Texts(FieldNumber, Vec<String>),
    /// The case is held in this division.
    Holder(Division),
    /// The case is held by this unit.
    Unit(String),
    /// Another system knows the record by this system and number.
    External(String, String),
    /// A date lies between these days, as `calendar::sort_key`; the second is the first that no longer counts.
    Days(FieldNumber, i64, i64),
}

impl Condition {
    fn holds(&self, reader: &Reader<'_>) -> bool {
        match self {
            Condition::Numbers(field, numbers) => {
                reader.number(*field).is_some_and(|number| numbers.contains(&number))
            }
            Condition::Parts(field, part, numbers) => {
                reader.part_number(*field, *part).is_some_and(|number| numbers.contains(&number))
            }
            Condition::Texts(field, texts) => reader.text(*field).is_some_and(|text| texts.contains(&text)),
            Condition::Holder(scope) => facet::holder(reader).is_some_and(|holder| scope.contains(holder)),
            Condition::Unit(unit) => facet::unit(reader) == *unit,
            Condition::External(system, number) => {
                reader.external_numbers().iter().any(|(s, n)| s == system && n == number)
            }
            Condition::Days(field, from, before) => {
                let day = reader.within(*field, |message| v1::Date::decode(message).ok());
                day.is_some_and(|day| (*from..*before).contains(&calendar::sort_key(&day)))
            }
        }
    }
}

/// What all lists ask for.
pub(super) struct Asked {
    pub(super) page_size: i32,
    pub(super) page_token: String,
    pub(super) show_deleted: bool,
    pub(super) updated_since: Option<prost_types::Timestamp>,
    pub(super) external_number: Option<v1::ExternalNumber>,
    /// Everything that the request says except for the page, so that a token of another one is noticed.
    pub(super) content: Vec<u8>,
}

/// A list under way.
pub(super) struct Query<'a> {
    shared: &'a Shared,
    sight: &'a Sight,
    kind: &'a Kind,
    scope: Division,
    asked: Asked,
    conditions: Vec<Condition>,
    ways: Vec<Way>,
}

/// One page: records with the moments of their last changes, and the token of the next page; empty: none.
pub(super) type Page = (Vec<(RecordName, crate::record::Record, u64)>, String);

impl<'a> Query<'a> {
    /// A list of records of a kind that meet all conditions, in a division that the caller may ask about.
    pub(super) fn new(
        shared: &'a Shared,
        sight: &'a Sight,
        kind: &'a Kind,
        scope: Division,
        asked: Asked,
        mut conditions: Vec<Condition>,
    ) -> Result<Query<'a>, Status> {
        if let Some(external) = &asked.external_number {
            if external.system.is_empty() || external.number.is_empty() {
                let text = "external_number: both the system and the number are needed";
                return Err(status::invalid("external_number", text));
            }
            conditions.push(Condition::External(external.system.clone(), external.number.clone()));
        }
        let ways = ways(kind, scope, &asked, &conditions);
        Ok(Query { shared, sight, kind, scope, asked, conditions, ways })
    }

    /// The page that the token asks for.
    pub(super) async fn page(&self) -> Result<Page, Status> {
        let size = page::size(self.asked.page_size)?;
        let query = format!("{} {} {:x?}", self.kind.rule.name, self.scope, self.asked.content);
        let (mut stage, mut at) = match page::after(&query, &self.asked.page_token)? {
            Some(text) => token::read(&text).ok_or_else(|| {
                status::invalid("page_token", "page_token: take it from an answer, unchanged")
            })?,
            None => (0, None),
        };
        let budget = EXAMINED_MAX.max(size);
        let (mut found, mut examined, mut bytes) = (Vec::new(), 0, 0);
        for _ in 0..STRETCHES_MAX {
            let Some(way) = self.ways.get(stage) else { return Ok((found, String::new())) };
            // Without conditions most records are shown: no more are read than are wanted.
            let plain = self.conditions.is_empty() && examined == 0;
            let limit = if plain { size } else { (budget - examined).min(size.max(100)) };
            let store = &self.shared.store;
            let stretch = store.stretch(self.kind.id, self.scope, *way, at.as_ref(), limit).await;
            let stretch = stretch.map_err(|e| status::of_store(&e))?;
            let keys: Vec<_> = stretch.keys.iter().map(|(key, _)| *key).collect();
            let listed = store.listed(&keys).await.map_err(|e| status::of_store(&e))?;
            let mut records: HashMap<_, _> = listed.into_iter().map(|r| (r.key, r)).collect();
            let last = stretch.keys.len();
            for (n, (key, position)) in stretch.keys.into_iter().enumerate() {
                examined += 1;
                let Some(listed) = records.remove(&key) else { continue };
                let length = listed.state.len();
                if let Some(admitted) = self.admit(stage, &position, listed)? {
                    found.push(admitted);
                    bytes += length;
                }
                if (found.len() == size || bytes >= page::BYTES_ENOUGH) && n + 1 < last {
                    return Ok((found, page::token(&query, &token::write(stage, Some(&position)))));
                }
            }
            match stretch.next {
                Some(next) => at = Some(next),
                None => (stage, at) = (stage + 1, None),
            }
            if stage == self.ways.len() {
                return Ok((found, String::new()));
            }
            if found.len() == size || bytes >= page::BYTES_ENOUGH || examined >= budget {
                break;
            }
        }
        Ok((found, page::token(&query, &token::write(stage, at.as_ref()))))
    }

    /// The record, if it meets everything that was asked and this way is the one that shows it.
    fn admit(
        &self,
        stage: usize,
        position: &Position,
        listed: Listed,
    ) -> Result<Option<(RecordName, crate::record::Record, u64)>, Status> {
        let record = codec::decode(listed.state).map_err(|e| status::broken(&e.to_string()))?;
        let reader = Reader { kind: self.kind, home: listed.name.home, record: &record };
        let deleted = self.kind.roles.deleted.is_some_and(|field| reader.flag(field));
        let fits = (self.asked.show_deleted || !deleted)
            && self.place(stage, position, &reader)
            && self.conditions.iter().all(|condition| condition.holds(&reader))
            && self.sight.sees(self.kind, &listed.name, &record);
        Ok(fits.then_some((listed.name, record, listed.updated_ms)))
    }

    /// Whether the record belongs to the division that was asked for, and is shown here and not on another way.
    fn place(&self, stage: usize, position: &Position, reader: &Reader<'_>) -> bool {
        let scope = self.scope;
        let born = scope.contains(reader.home);
        let is_case = self.kind.roles.lifecycle.is_some();
        let holder = is_case.then(|| facet::holder(reader)).flatten().filter(|d| scope.contains(*d));
        let addressed = is_case.then(|| facet::addressed(reader)).flatten().filter(|d| scope.contains(*d));
        if stage == 0 || !self.is_handed(stage) {
            return born || holder.is_some() || addressed.is_some();
        }
        // A case may be handed to two divisions of the scope: the holder's row shows it.
        let away = |division: &Division| !division.contains(reader.home);
        let shown_by = holder.filter(away).or(addressed.filter(away));
        let Position::Facet(value, ..) = position else { return false };
        !born && shown_by.is_some_and(|division| facet::of_holder(division, "") == *value)
    }

    fn is_handed(&self, stage: usize) -> bool {
        let handed = Facet::Handed.number(self.kind.id);
        matches!(self.ways.get(stage), Some(Way::Facet { facet, .. }) if *facet == handed)
    }
}

/// The ways that lead to every record that can meet the conditions, each record on one of them.
fn ways(kind: &Kind, scope: Division, asked: &Asked, conditions: &[Condition]) -> Vec<Way> {
    use guantong_proto::rules::fields::{camera, case};
    let one =
        |facet: Facet, value: i64| Way::Facet { facet: facet.number(kind.id), first: value, last: value };
    if let Some(external) = &asked.external_number {
        let value = facet::of_external(&external.system, &external.number);
        return vec![one(Facet::ExternalNumber, value)];
    }
    if let Some(since) = &asked.updated_since {
        let ms = since.seconds.saturating_mul(1_000).saturating_add(i64::from(since.nanos) / 1_000_000);
        return vec![Way::Updated(ms.max(0) as u64)];
    }
    let is_case = kind.roles.lifecycle.is_some();
    let (mut pole, mut holder, mut states, mut categories) = (None, None, None, None);
    for condition in conditions {
        match condition {
            Condition::Texts(camera::POLE_CODE, poles) if !is_case => pole = poles.first(),
            Condition::Texts(case::CATEGORY, found) if is_case => categories = Some(found),
            Condition::Parts(case::LIFECYCLE, 1, found) if is_case => states = Some(found),
            Condition::Holder(found) => holder = Some(*found),
            _ => {}
        }
    }
    if let Some(pole) = pole {
        return vec![one(Facet::Pole, facet::of_text(pole))];
    }
    if let Some(holder) = holder {
        let (first, last) = facet::of_holders(holder).into_inner();
        return vec![Way::Facet { facet: Facet::Holder.number(kind.id), first, last }];
    }
    let mut ways: Vec<Way> = match (states, categories) {
        (Some(states), _) => states.iter().map(|state| one(Facet::State, *state as i64)).collect(),
        (None, Some(found)) => found.iter().map(|code| one(Facet::Category, facet::of_text(code))).collect(),
        (None, None) => vec![Way::Names],
    };
    if is_case {
        let (first, last) = facet::of_holders(scope).into_inner();
        ways.push(Way::Facet { facet: Facet::Handed.number(kind.id), first, last });
    }
    ways
}

/// Numbers of an enum that a condition names, each once. `name` gives the names of its values.
pub(super) fn numbers(
    field: &str,
    numbers: &[i32],
    name: impl Fn(i32) -> Option<&'static str>,
) -> Result<Vec<u64>, Status> {
    let mut wanted: Vec<u64> = Vec::with_capacity(numbers.len());
    for number in numbers {
        match u64::try_from(*number).ok().filter(|n| *n != 0 && name(*number).is_some()) {
            Some(number) => wanted.push(number),
            None => {
                let text = writes::no_value(field, *number, name) + "; leave it out to ask for all";
                return Err(status::invalid(field, text));
            }
        }
    }
    wanted.sort_unstable();
    wanted.dedup();
    few(field, wanted)
}

/// Texts that a condition names, each once.
pub(super) fn texts(field: &str, texts: &[String]) -> Result<Vec<String>, Status> {
    if texts.iter().any(String::is_empty) {
        return Err(status::invalid(field, format!("{field}: an empty text is no condition; leave it out")));
    }
    let mut wanted = texts.to_vec();
    wanted.sort_unstable();
    wanted.dedup();
    few(field, wanted)
}

fn few<T>(field: &str, values: Vec<T>) -> Result<Vec<T>, Status> {
    if values.len() <= VALUES_MAX {
        return Ok(values);
    }
    Err(status::invalid(field, format!("{field}: at most {VALUES_MAX} values")))
}

/// The condition of a range of days; `None`: the range is open on both ends.
pub(super) fn days(
    name: &str,
    field: FieldNumber,
    range: Option<&v1::DateRange>,
) -> Result<Option<Condition>, Status> {
    let Some(range) = range.filter(|range| range.since.is_some() || range.before.is_some()) else {
        return Ok(None);
    };
    let day = |end: &str, date: Option<&v1::Date>| match date {
        Some(date) if !calendar::is_date(date) => {
            let path = format!("{name}.{end}");
            Err(status::invalid(&path, format!("{path}: it is not a day of the calendar, 1900 to 2199")))
        }
        date => Ok(date.map(calendar::sort_key)),
    };
    let since = day("since", range.since.as_ref())?.unwrap_or(0);
    let before = day("before", range.before.as_ref())?.unwrap_or(i64::MAX);
    if before <= since {
        let text =
            format!("{name}: it ends before it begins; `before` is the first day that no longer counts");
        return Err(status::invalid(&format!("{name}.before"), text));
    }
    Ok(Some(Condition::Days(field, since, before)))
}
