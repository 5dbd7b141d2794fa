//! A line is cut, both sides write on, the line comes back: nothing is lost, and what contradicts itself is shown with
//! both values until a person settles it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::future::try_join_all;
use guantong_gateway::division::Division;
use guantong_proto::v1;
use serde_json::json;

use super::ask::{self, plain, until};
use super::stage::Stage;
use crate::cli::report::{table, time};
use crate::ledger::describe;

/// For nodes to notice that a line is cut.
const NOTICE_TIME: Duration = Duration::from_secs(60);
/// For the line to be up again and everything to have crossed it. A wait between two attempts is at most a minute.
const AGREE_TIME: Duration = Duration::from_secs(120);
/// What the township writes meanwhile.
const INVOLVED: i32 = 7;

/// A field that both sides write while they do not hear of each other.
struct Dispute {
    record: String,
    field: &'static str,
    /// Whose value is kept at the end.
    keep: Division,
}

impl Dispute {
    fn conflict(&self) -> String {
        format!("{}/conflicts/{}", self.record, self.field)
    }
}

/// The whole act.
pub(super) async fn play(stage: &mut Stage) -> Result<()> {
    let (hub, above) = (stage.hub, stage.above);
    let names = (stage.name(hub), stage.name(above));
    stage.show.step(
        &format!("{}与{}之间断线，两侧继续办理", names.0, names.1),
        &format!("the line between {hub} and {above} is cut while both sides go on"),
    );
    stage.tree.cut(hub);
    let link = until("the lower node notices that its line is cut", NOTICE_TIME, async || {
        Ok(Some(ask::uplink(&stage.tree.client(hub)?).await?).filter(|link| !link.connected))
    })
    .await?;
    stage.show.tell(&format!("{}: no link to {}: {}", names.0, names.1, link.last_error));
    let mut disputes = Vec::new();
    disputes.extend(write_case(stage).await?);
    disputes.extend(write_camera(stage).await?);
    if disputes.is_empty() {
        stage.show.tell("no cases and cameras in these figures: nothing to conflict about (无可演示的记录)");
    }

    let (chinese, english) =
        ("线路恢复，各级一致，冲突列出", "the line is mended, all tiers agree, conflicts are listed");
    stage.show.step(chinese, english);
    stage.tree.mend(hub);
    let mut tiers = stage.upward();
    until("all tiers hold the same conflicts", AGREE_TIME, async || agree(stage, &tiers, &disputes).await)
        .await?;
    stage.quiet().await?;
    let case_name =
        disputes.iter().find(|dispute| dispute.field == "risk").map(|dispute| dispute.record.clone());
    // Counts of people go no higher than the prefecture.
    if let Some(name) = case_name.as_deref().filter(|_| above != stage.plan.top) {
        until("what the township wrote is above", AGREE_TIME, async || {
            let record = ask::record(&stage.tree.client(above)?, name).await?;
            let involved = record.as_ref().and_then(case).and_then(|case| case.involved_count);
            Ok(involved.filter(|count| *count == INVOLVED))
        })
        .await?;
    }
    list(stage, &disputes).await?;

    stage.show.step("冲突由县级处理，各级随之更新", "the county settles the conflicts, and all tiers follow");
    let township = case_name.as_deref().map(home_of).transpose()?;
    tiers.extend(township.and_then(|township| stage.tree.node_of(township)).filter(|node| *node != hub));
    settle(stage, &disputes).await?;
    until("no tier has a conflict left", AGREE_TIME, async || {
        let left = try_join_all(tiers.iter().map(|tier| left(stage, *tier, &disputes))).await?;
        Ok(left.iter().all(|left| *left == 0).then_some(()))
    })
    .await?;
    stage.show.tell(&format!("no conflicts left on {} nodes (冲突已全部处理)", tiers.len()));
    Ok(())
}

/// Each side writes the risk of one case, without hearing of the other; the township goes on as well.
async fn write_case(stage: &Stage) -> Result<Option<Dispute>> {
    let (hub, above) = (stage.hub, stage.above);
    let (lower, upper) = (stage.tree.client(hub)?, stage.tree.client(above)?);
    let Some(v1::Record { name, .. }) = ask::first_record(&lower, "case", hub).await? else {
        return Ok(None);
    };
    let risk = |risk: v1::CaseRisk| v1::Case { risk: Some(risk as i32), ..v1::Case::default() };
    ask::write(&lower, &name, &risk(v1::CaseRisk::Red)).await.context("the lower side writes")?;
    stage.show.tell(&format!("{} writes 风险等级 红 to a case", stage.name(hub)));
    ask::write(&upper, &name, &risk(v1::CaseRisk::Yellow)).await.context("the upper side writes")?;
    stage.show.tell(&format!("{} writes 风险等级 黄 to the same case", stage.name(above)));
    let township = home_of(&name)?;
    let involved = v1::Case { involved_count: Some(INVOLVED), ..v1::Case::default() };
    ask::write(&stage.client_for(township)?, &name, &involved).await.context("the township writes")?;
    stage.show.tell(&format!("{} writes 涉及人数 {INVOLVED} to it", stage.name(township)));
    Ok(Some(Dispute { record: name, field: "risk", keep: hub }))
}

/// Each side writes the class of one camera.
async fn write_camera(stage: &Stage) -> Result<Option<Dispute>> {
    let (hub, above) = (stage.hub, stage.above);
    let (lower, upper) = (stage.tree.client(hub)?, stage.tree.client(above)?);
    let Some(v1::Record { name, .. }) = ask::first_record(&lower, "camera", hub).await? else {
        return Ok(None);
    };
    let class =
        |class: v1::PointClass| v1::Camera { point_class: Some(class as i32), ..v1::Camera::default() };
    ask::write(&lower, &name, &class(v1::PointClass::First)).await.context("the lower side writes")?;
    stage.show.tell(&format!("{} writes 点位类别 一类 to a camera", stage.name(hub)));
    ask::write(&upper, &name, &class(v1::PointClass::Second)).await.context("the upper side writes")?;
    stage.show.tell(&format!("{} writes 点位类别 二类 to the same camera", stage.name(above)));
    Ok(Some(Dispute { record: name, field: "point_class", keep: above }))
}

/// Whether all tiers show the same conflicts, made of the same values.
async fn agree(stage: &Stage, tiers: &[Division], disputes: &[Dispute]) -> Result<Option<()>> {
    let mut seen: Option<Vec<String>> = None;
    for tier in tiers {
        let open = ask::conflicts(&stage.tree.client(*tier)?, stage.hub).await?;
        let mut etags = Vec::new();
        for dispute in disputes {
            let name = dispute.conflict();
            let Some(conflict) = open.iter().find(|conflict| conflict.name == name) else { return Ok(None) };
            etags.push(conflict.etag.clone());
        }
        if seen.get_or_insert_with(|| etags.clone()) != &etags {
            return Ok(None);
        }
    }
    Ok(Some(()))
}

/// Prints every conflict with its values, writers and times.
async fn list(stage: &mut Stage, disputes: &[Dispute]) -> Result<()> {
    let open = ask::conflicts(&stage.tree.client(stage.hub)?, stage.hub).await?;
    let (mut rows, mut listed) = (Vec::new(), Vec::new());
    for conflict in open.iter().filter(|conflict| disputes.iter().any(|d| d.conflict() == conflict.name)) {
        for value in &conflict.values {
            let kind = kind_of(&conflict.record);
            let (label, text) = describe(kind, &value.fields)?.into_iter().next().unwrap_or_default();
            let writer = Division::parse(&value.writer_division)?;
            let at = time(value.write_time.as_ref());
            listed.push(json!({
                "record": conflict.record, "field": conflict.field_name, "value": text,
                "writer": value.writer_division, "time": at, "shown": value.shown,
            }));
            let shown = if value.shown { "shown 显示" } else { "" }.to_owned();
            rows.push([conflict.record.clone(), label, text, stage.name(writer), at, shown]);
        }
    }
    let text = table(["record 记录", "field 字段", "value 值", "writer 写入方", "time 时间", ""], &rows);
    let tiers: Vec<String> = stage.upward().iter().map(|tier| stage.name(*tier)).collect();
    stage.show.tell(&format!("the same at {} (各级一致):\n{text}", tiers.join(", ")));
    stage.report.insert("conflicts".to_owned(), listed.into());
    Ok(())
}

/// The lower side settles each conflict by keeping one of the values.
async fn settle(stage: &Stage, disputes: &[Dispute]) -> Result<()> {
    let client = stage.tree.client(stage.hub)?;
    let open = ask::conflicts(&client, stage.hub).await?;
    for dispute in disputes {
        let name = dispute.conflict();
        let conflict = open.iter().find(|c| c.name == name).with_context(|| format!("{name} is gone"))?;
        let keeper = dispute.keep.to_string();
        let Some(at) = conflict.values.iter().position(|value| value.writer_division == keeper) else {
            bail!("{name} has no value of {keeper}");
        };
        let request = v1::ResolveConflictRequest {
            name,
            keep: u32::try_from(at)?,
            etag: conflict.etag.clone(),
            ..v1::ResolveConflictRequest::default()
        };
        client.conflicts().resolve_conflict(request).await.map_err(plain)?;
        let keeper = stage.name(dispute.keep);
        stage.show.tell(&format!("{}: {} of {keeper} is kept", stage.name(stage.hub), dispute.field));
    }
    Ok(())
}

/// How many of the conflicts a node still has.
async fn left(stage: &Stage, node: Division, disputes: &[Dispute]) -> Result<usize> {
    let client = stage.tree.client(node)?;
    let open = ask::conflicts(&client, if node.contains(stage.hub) { stage.hub } else { node }).await?;
    Ok(open.iter().filter(|conflict| disputes.iter().any(|d| d.conflict() == conflict.name)).count())
}

/// A record's fields as those of a case.
pub(super) fn case(record: &v1::Record) -> Option<v1::Case> {
    prost::Message::decode(record.fields.clone()).ok()
}

/// The home in a record's name, `divisions/{home}/{kind}s/{id}`.
pub(super) fn home_of(name: &str) -> Result<Division> {
    let home = name.split('/').nth(1).context("a record's name has a home")?;
    Ok(Division::parse(home)?)
}

fn kind_of(name: &str) -> &'static str {
    if name.split('/').nth(2) == Some("cases") { "case" } else { "camera" }
}
