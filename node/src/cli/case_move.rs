//! `guantong move`: a case along its way. Which moves its state allows is the node's to say; it names them when it
//! refuses one.

use guantong_gateway::division::Division;
use guantong_proto::v1;

use super::connection::NodeArgs;
use super::report::Report;
use super::set::request_id;
use super::{get, json, problem};

const EXAMPLE: &str = "\
  guantong move divisions/220822101000/cases/12345 accept
  guantong move divisions/220822101000/cases/12345 escalate --reason beyond_means
  guantong move divisions/220822101000/cases/12345 assign --to 220822101 --unit police
  guantong move divisions/220822101000/cases/12345 conclude --succeeded true --method peoples --concluded-on 2026-11-21";

/// Move a case along its way: take it over, hand it on, end it (办理事件：受理、上报、交办、办结等)
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct MoveArgs {
    /// The case's name, such as divisions/220822101000/cases/ID
    name: String,
    /// What is done with it
    #[arg(value_name = "MOVE")]
    action: Action,
    /// The division addressed, for escalate, assign and transfer
    #[arg(long, value_name = "CODE")]
    to: Option<Division>,
    /// The unit addressed, such as police or court; without it the division itself
    #[arg(long, value_name = "UNIT", default_value = "")]
    unit: String,
    /// Why, where the move needs a reason
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// For conclude: whether the case was settled
    #[arg(long, value_name = "BOOL")]
    succeeded: Option<bool>,
    /// For conclude: how it was settled
    #[arg(long)]
    method: Option<Method>,
    /// For conclude: who settled it
    #[arg(long)]
    organisation: Option<Organisation>,
    /// For conclude: the day, as 2026-11-21
    #[arg(long, value_name = "DATE", value_parser = date)]
    concluded_on: Option<v1::Date>,
    /// Refuse if the case has changed since this etag was read
    #[arg(long, default_value = "")]
    etag: String,
    /// Act as this division, for which the node acts
    #[arg(long = "as", value_name = "CODE")]
    acting: Option<Division>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Action {
    /// Register a case that has no state yet (上报登记)
    Report,
    /// Take it over, by whom it is addressed to (受理)
    Accept,
    /// Give it back to the sender, with a reason (退回)
    Return,
    /// End it, only to be kept on record (备案)
    File,
    /// End it as invalid or a duplicate (关闭)
    Cancel,
    /// Hand it to the next tier up; skipping one needs a reason (上报)
    Escalate,
    /// Hand it to a division below (交办)
    Assign,
    /// Hand it to another unit, or to a division beside (移交)
    Transfer,
    /// Refuse a transfer that is offered (拒收)
    Refuse,
    /// Settle it (办结)
    Conclude,
    /// Confirm that it is settled; the end (结案)
    Verify,
    /// It is not settled: back to work (验证未通过)
    #[value(alias = "send_back")]
    SendBack,
}

impl From<Action> for v1::Move {
    fn from(action: Action) -> v1::Move {
        match action {
            Action::Report => v1::Move::Report,
            Action::Accept => v1::Move::Accept,
            Action::Return => v1::Move::Return,
            Action::File => v1::Move::File,
            Action::Cancel => v1::Move::Cancel,
            Action::Escalate => v1::Move::Escalate,
            Action::Assign => v1::Move::Assign,
            Action::Transfer => v1::Move::Transfer,
            Action::Refuse => v1::Move::Refuse,
            Action::Conclude => v1::Move::Conclude,
            Action::Verify => v1::Move::Verify,
            Action::SendBack => v1::Move::SendBack,
        }
    }
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Method {
    /// 人民调解
    Peoples,
    /// 行政调解
    Administrative,
    /// 司法调解
    Judicial,
    /// 其他
    Other,
}

impl From<Method> for v1::MediationMethod {
    fn from(method: Method) -> v1::MediationMethod {
        match method {
            Method::Peoples => v1::MediationMethod::Peoples,
            Method::Administrative => v1::MediationMethod::Administrative,
            Method::Judicial => v1::MediationMethod::Judicial,
            Method::Other => v1::MediationMethod::Other,
        }
    }
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Organisation {
    /// 村（社区）调委会
    VillageCommittee,
    /// 乡镇（街道）调委会
    TownshipCommittee,
    /// 行业性专业性调委会
    SectorCommittee,
    /// 矛调中心
    MediationCentre,
    /// 行政机关
    GovernmentBody,
    /// 司法机关
    JudicialBody,
    /// 其他
    Other,
}

impl From<Organisation> for v1::MediationOrganisation {
    fn from(organisation: Organisation) -> v1::MediationOrganisation {
        match organisation {
            Organisation::VillageCommittee => v1::MediationOrganisation::VillageCommittee,
            Organisation::TownshipCommittee => v1::MediationOrganisation::TownshipCommittee,
            Organisation::SectorCommittee => v1::MediationOrganisation::SectorCommittee,
            Organisation::MediationCentre => v1::MediationOrganisation::MediationCentre,
            Organisation::GovernmentBody => v1::MediationOrganisation::GovernmentBody,
            Organisation::JudicialBody => v1::MediationOrganisation::JudicialBody,
            Organisation::Other => v1::MediationOrganisation::Other,
        }
    }
}

pub(crate) async fn run(args: &MoveArgs) -> anyhow::Result<Report> {
    json::kind_of(&args.name)?;
    let mut records = args.node.connect().await?.records();
    let code = |division: Option<Division>| division.map(|division| division.to_string()).unwrap_or_default();
    let request = v1::MoveCaseRequest {
        name: args.name.clone(),
        r#move: v1::Move::from(args.action).into(),
        to_division: code(args.to),
        to_unit: args.unit.clone(),
        reason: args.reason.clone(),
        outcome: outcome(args),
        etag: args.etag.clone(),
        acting_division: code(args.acting),
        request_id: request_id()?,
    };
    let record = records.move_case(request).await.map_err(problem::plain)?.into_inner();
    get::report(&record)
}

/// What came of the case, if anything is said of it.
fn outcome(args: &MoveArgs) -> Option<v1::Outcome> {
    let outcome = v1::Outcome {
        method: args.method.map_or(v1::MediationMethod::Unspecified, Into::into).into(),
        organisation: args.organisation.map_or(v1::MediationOrganisation::Unspecified, Into::into).into(),
        succeeded: args.succeeded,
        concluded_on: args.concluded_on,
    };
    (outcome != v1::Outcome::default()).then_some(outcome)
}

/// A day as it is typed.
pub(crate) fn date(text: &str) -> Result<v1::Date, String> {
    let format = time::macros::format_description!("[year]-[month]-[day]");
    let date = time::Date::parse(text, format).map_err(|_| "write a day as 2026-11-21".to_owned())?;
    Ok(v1::Date { year: date.year(), month: u8::from(date.month()).into(), day: date.day().into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum as _;

    /// A move of the contract that cannot be typed would be out of reach.
    #[test]
    fn every_move_can_be_typed() {
        let typed: Vec<i32> =
            Action::value_variants().iter().map(|action| v1::Move::from(*action).into()).collect();
        let known: Vec<i32> = (1..100).filter(|number| v1::Move::try_from(*number).is_ok()).collect();
        assert_eq!(typed, known);
    }

    #[test]
    fn days_are_days() {
        assert_eq!(date("2026-02-28"), Ok(v1::Date { year: 2026, month: 2, day: 28 }));
        assert!(date("2026-02-29").is_err() && date("28.2.2026").is_err());
    }
}
