//! A case that was born in one township is handed over through the county to another, which takes it up and ends it.
//! It goes down to the township that it concerns now, and to no other.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use guantong_gateway::division::Division;
use guantong_proto::v1;
use serde_json::json;
use time::Date;

use super::ask::{self, plain, until};
use super::conflict::case;
use super::stage::Stage;

/// For a case to get from one township to another.
const TRAVEL_TIME: Duration = Duration::from_secs(30);
const TITLE: &str = "（演示）两镇交界处道路积水";

/// The whole act.
pub(super) async fn play(stage: &mut Stage) -> Result<()> {
    stage.show.step(
        "跨乡镇移交：经县级送达，对方受理并办结",
        "a case is handed over to another township, which ends it",
    );
    let Some((from, to, other)) = townships(stage) else {
        stage.show.tell("there is no second township to hand it over to (没有第二个乡镇，略过)");
        return Ok(());
    };
    let name = format!("divisions/{from}/cases/demo-handover");
    let (sender, receiver) = (stage.client_for(from)?, stage.client_for(to)?);
    let case = new_case(from, stage.today);
    ask::write(&sender, &name, &case).await.context("the case is registered")?;
    make_move(&sender, &name, from, v1::Move::Accept, |_| {}).await?;
    make_move(&sender, &name, from, v1::Move::Transfer, |request| request.to_division = to.to_string())
        .await?;
    stage.show.tell(&format!("{} registers the case, takes it up and hands it over", stage.name(from)));

    arrives(&receiver, &name, |l| l.state() == v1::CaseState::Pending && l.pending_to == to.to_string())
        .await?;
    make_move(&receiver, &name, to, v1::Move::Accept, |_| {}).await?;
    make_move(&receiver, &name, to, v1::Move::Conclude, |request| request.outcome = Some(outcome())).await?;
    stage.show.tell(&format!("{} finds it, takes it up and concludes it", stage.name(to)));

    let done = |l: &v1::Lifecycle| l.state() == v1::CaseState::Concluded && l.holder == to.to_string();
    let watchers = std::iter::once(from).chain(stage.upward());
    for watcher in watchers {
        arrives(&stage.client_for(watcher)?, &name, done).await?;
    }
    let title = ask::record(&receiver, &name).await?.and_then(|record| super::conflict::case(&record)?.title);
    if title.as_deref() != Some(TITLE) {
        bail!("{to} got the case without its file");
    }
    let stranger = other.filter(|other| stage.tree.node_of(*other) == Some(*other));
    if let Some(other) = stranger {
        if ask::record(&stage.client_for(other)?, &name).await?.is_some() {
            bail!("{other} has a case that does not concern it");
        }
        stage.show.tell(&format!("everyone above sees the end; {} never had the case", stage.name(other)));
    }
    stage.report.insert("handover".to_owned(), json!({ "case": name, "to": to.to_string() }));
    Ok(())
}

/// Two townships below the hub, with nodes where there are any, and one that the case does not concern.
fn townships(stage: &Stage) -> Option<(Division, Division, Option<Division>)> {
    let mut all = stage.leaves();
    let acted_for =
        stage.plan.acted_for.iter().copied().filter(|t| stage.hub.contains(*t) && !all.contains(t));
    let acted_for: Vec<Division> = acted_for.collect();
    all.extend(acted_for);
    let [first, second, rest @ ..] = all.as_slice() else { return None };
    Some((*first, *second, rest.first().copied()))
}

fn new_case(home: Division, today: Date) -> v1::Case {
    let party = |role: v1::PartyRole, name: &str| v1::Party {
        role: role as i32,
        name: name.to_owned(),
        telephone: "000-00000000".to_owned(),
    };
    let date = v1::Date {
        year: today.year(),
        month: i32::from(u8::from(today.month())),
        day: i32::from(today.day()),
    };
    v1::Case {
        case_kind: Some(v1::CaseKind::Incident as i32),
        category: Some("neighbours".to_owned()),
        channel: Some(v1::CaseChannel::GridStaff as i32),
        division: Some(home.to_string()),
        received_on: Some(date),
        title: Some(TITLE.to_owned()),
        parties: vec![party(v1::PartyRole::Applicant, "张甲"), party(v1::PartyRole::Respondent, "李乙")],
        lifecycle: Some(v1::Lifecycle {
            state: v1::CaseState::Reported as i32,
            holder: home.to_string(),
            unit: "division".to_owned(),
            ..v1::Lifecycle::default()
        }),
        ..v1::Case::default()
    }
}

fn outcome() -> v1::Outcome {
    v1::Outcome {
        method: v1::MediationMethod::Other as i32,
        organisation: v1::MediationOrganisation::TownshipCommittee as i32,
        succeeded: Some(true),
        concluded_on: None,
    }
}

async fn make_move(
    client: &crate::client::Client,
    name: &str,
    actor: Division,
    action: v1::Move,
    more: impl FnOnce(&mut v1::MoveCaseRequest),
) -> Result<()> {
    let mut request = v1::MoveCaseRequest {
        name: name.to_owned(),
        r#move: action as i32,
        acting_division: actor.to_string(),
        ..v1::MoveCaseRequest::default()
    };
    more(&mut request);
    let moved = client.records().move_case(request).await;
    moved.map_err(plain).with_context(|| format!("{actor}: {}", action.as_str_name()))?;
    Ok(())
}

/// Waits until a node shows the case in a state.
async fn arrives(
    client: &crate::client::Client,
    name: &str,
    there: impl Fn(&v1::Lifecycle) -> bool,
) -> Result<()> {
    until("the case arrives", TRAVEL_TIME, async || {
        let record = ask::record(client, name).await?;
        let lifecycle = record.as_ref().and_then(case).and_then(|case| case.lifecycle);
        Ok(lifecycle.filter(|lifecycle| there(lifecycle)).map(|_| ()))
    })
    .await
}
