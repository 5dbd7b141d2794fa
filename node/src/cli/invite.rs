//! `guantong invite`: invitations of new nodes below a node. A code is printed once and kept nowhere.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use guantong_gateway::division::Division;
use guantong_proto::v1;
use guantong_proto::v1::invitation_service_client::InvitationServiceClient;
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::connection::NodeArgs;
use super::report::{Report, table, time};
use super::{json as messages, problem};

const PAGE_SIZE: i32 = 1_000;

const EXAMPLE: &str = "\
  guantong invite 220822101
  guantong invite 2208 --valid 7d --host prefecture.example
  guantong invite --list
  guantong invite --withdraw invitations/9f2c5a7d01e4b836

The answer shows the code, this once. On the new node's machine:
  guantong enroll --parent county.example:7443 --code CODE

The node needs an authority in its configuration: dir in [authority]. (邀请码仅显示一次，用后即失效)";

/// Invite a new node below this one, or see to invitations (邀请下级节点)
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct InviteArgs {
    /// The division that the new node is for (新节点的区划)
    #[arg(required_unless_present_any = ["list", "withdraw"], conflicts_with_all = ["list", "withdraw"])]
    division: Option<Division>,
    /// How long the code is good, such as 72h or 7d (有效期)
    #[arg(long, value_name = "TIME", default_value = "72h", value_parser = span)]
    valid: Duration,
    /// A DNS name or address by which others will dial the new node; as often as there are (主机名或地址)
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// List the invitations (列出邀请)
    #[arg(long)]
    list: bool,
    /// Take an invitation back (撤回邀请)
    #[arg(long, value_name = "INVITATION", conflicts_with = "list")]
    withdraw: Option<String>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

/// A time such as `90m`, `72h` or `7d`.
fn span(text: &str) -> Result<Duration, String> {
    let wrong = || "write a number and m, h or d, such as 72h (应写作如 72h)".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let number: u32 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

pub(crate) async fn run(args: &InviteArgs) -> anyhow::Result<Report> {
    let channel = args.node.connect().await?.channel();
    let mut client = InvitationServiceClient::new(channel);
    if args.list {
        return list(&mut client).await;
    }
    if let Some(name) = &args.withdraw {
        let name = if name.contains('/') { name.clone() } else { format!("invitations/{name}") };
        let request = v1::DeleteInvitationRequest { name: name.clone() };
        client.delete_invitation(request).await.map_err(problem::plain)?;
        let text = format!("{name} is taken back; its code is not accepted any more (已撤回邀请)\n");
        return Ok(Report::done(text, json!({ "withdrawn": name })));
    }
    let until = SystemTime::now() + args.valid;
    let seconds = until.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let expire_time = prost_types::Timestamp { seconds: i64::try_from(seconds)?, nanos: 0 };
    let invitation = v1::Invitation {
        division: args.division.map(|division| division.to_string()).unwrap_or_default(),
        hosts: args.hosts.clone(),
        expire_time: Some(expire_time),
        ..v1::Invitation::default()
    };
    let request = v1::CreateInvitationRequest { invitation: Some(invitation) };
    let made = client.create_invitation(request).await.map_err(problem::plain)?.into_inner();
    let text = format!(
        "{}\n\nfor the node of {}, good once, until {} (仅可使用一次)\n{}  guantong invite --withdraw {}\n",
        made.code,
        made.division,
        time(made.expire_time.as_ref()),
        "On its machine: guantong enroll --parent HOST:PORT --code CODE\nTo take it back:",
        made.name,
    );
    Ok(Report::done(text, of_invitation(&made)?))
}

fn of_invitation(invitation: &v1::Invitation) -> anyhow::Result<Value> {
    messages::of_message("guantong.v1.Invitation", invitation)
}

fn state(invitation: &v1::Invitation) -> &'static str {
    match invitation.state() {
        v1::InvitationState::Open => "open (待使用)",
        v1::InvitationState::Used => "used (已使用)",
        v1::InvitationState::Expired => "expired (已过期)",
        v1::InvitationState::Withdrawn => "taken back (已撤回)",
        v1::InvitationState::Unspecified => "?",
    }
}

async fn list(client: &mut InvitationServiceClient<Channel>) -> anyhow::Result<Report> {
    let mut invitations: Vec<v1::Invitation> = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListInvitationsRequest { page_size: PAGE_SIZE, page_token };
        let answer = client.list_invitations(request).await.map_err(problem::plain)?.into_inner();
        invitations.extend(answer.invitations);
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let rows: Vec<[String; 6]> = invitations
        .iter()
        .map(|one| {
            let (made, until) = (time(one.create_time.as_ref()), time(one.expire_time.as_ref()));
            let (name, division) = (one.name.clone(), one.division.clone());
            [name, division, state(one).to_owned(), made, until, one.created_by.clone()]
        })
        .collect();
    let headers =
        ["invitation 邀请", "division 区划", "state 状态", "made 创建时间", "until 有效期至", "by 创建人"];
    let text = match rows.as_slice() {
        [] => "nobody is invited (尚无邀请)\n".to_owned(),
        rows => table(headers, rows),
    };
    let entries: anyhow::Result<Vec<Value>> = invitations.iter().map(of_invitation).collect();
    Ok(Report::done(text, json!({ "invitations": entries? })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, seconds) in [("90m", 5_400), ("72h", 259_200), ("7d", 604_800)] {
            assert_eq!(span(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "h", "72", "-1h", "1w", "3天", "99999999999h"] {
            assert!(span(text).is_err(), "{text}");
        }
    }
}
