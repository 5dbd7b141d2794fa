//! `guantong subscriptions`: the durable feeds of a node, and what their readers have not taken yet.

use guantong_gateway::division::Division;
use guantong_proto::v1;
use serde_json::{Value, json};

use super::connection::NodeArgs;
use super::pages::{self, PAGE_SIZE};
use super::report::{Report, list, table, time};
use super::{json as messages, problem};

const EXAMPLE: &str = "\
  guantong subscriptions list
  guantong subscriptions create centre --kinds case,camera --scope 220822
  guantong subscriptions show centre
  guantong subscriptions delete centre

What a subscription is owed waits for its reader, however long it stays away: of each record the latest form, once.
`guantong subscribe` reads one into tables or files. (订阅未读取的变化会一直保留，每条记录只保留最新一份)";

/// Durable feeds of records for partners and data centres (数据订阅)
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct SubscriptionsArgs {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List subscriptions with what they are owed (列出订阅及积压)
    List,
    /// Show one (查看)
    Show {
        /// Its name
        name: String,
    },
    /// Make one; everything that it covers is owed from now on (创建)
    Create(Create),
    /// End one and forget what it is owed (删除)
    Delete {
        /// Its name
        name: String,
    },
}

#[derive(Debug, clap::Args)]
struct Create {
    /// A lower-case letter, then letters, digits and hyphens (名称)
    name: String,
    #[command(flatten)]
    covers: Covers,
}

/// What a subscription covers.
#[derive(Debug, clap::Args)]
pub(super) struct Covers {
    /// Kinds of records, separated by commas; default: all (数据种类)
    #[arg(long, value_name = "KIND,…", value_delimiter = ',')]
    pub(super) kinds: Vec<String>,
    /// Records that concern this division or one inside it; default: all that may be read (区划范围)
    #[arg(long, value_name = "CODE")]
    pub(super) scope: Option<Division>,
    /// Names and telephone numbers, too (包含个人信息)
    #[arg(long)]
    pub(super) personal_data: bool,
}

pub(crate) async fn run(args: &SubscriptionsArgs) -> anyhow::Result<Report> {
    let mut client = args.node.connect().await?.subscriptions();
    match &args.command {
        Command::Show { name } => {
            let request = v1::GetSubscriptionRequest { name: resource(name) };
            one(&client.get_subscription(request).await.map_err(problem::plain)?.into_inner())
        }
        Command::Create(create) => {
            let subscription = v1::Subscription {
                kinds: create.covers.kinds.clone(),
                scope: create.covers.scope.map(|scope| scope.to_string()).unwrap_or_default(),
                personal_data: create.covers.personal_data,
                ..v1::Subscription::default()
            };
            let request = v1::CreateSubscriptionRequest {
                subscription_id: create.name.clone(),
                subscription: Some(subscription),
            };
            one(&client.create_subscription(request).await.map_err(problem::plain)?.into_inner())
        }
        Command::Delete { name } => {
            let request = v1::DeleteSubscriptionRequest { name: resource(name) };
            client.delete_subscription(request).await.map_err(problem::plain)?;
            let text = format!("{name} is gone, with what it was owed (订阅已删除)\n");
            Ok(Report::done(text, json!({ "deleted": resource(name) })))
        }
        Command::List => {
            let mut found: Vec<v1::Subscription> = Vec::new();
            pages::each(async |page_token| {
                let request = v1::ListSubscriptionsRequest { page_size: PAGE_SIZE, page_token };
                let page = client.list_subscriptions(request).await.map_err(problem::plain)?.into_inner();
                found.extend(page.subscriptions);
                Ok(page.next_page_token)
            })
            .await?;
            all(&found)
        }
    }
}

fn resource(name: &str) -> String {
    if name.starts_with("subscriptions/") { name.to_owned() } else { format!("subscriptions/{name}") }
}

fn short(subscription: &v1::Subscription) -> String {
    subscription.name.trim_start_matches("subscriptions/").to_owned()
}

fn kinds(subscription: &v1::Subscription) -> String {
    if subscription.kinds.is_empty() { "all (全部)".to_owned() } else { subscription.kinds.join(",") }
}

fn reader(subscription: &v1::Subscription) -> String {
    match subscription.reader_address.as_str() {
        "" => "nobody (无)".to_owned(),
        address => address.to_owned(),
    }
}

fn owed(subscription: &v1::Subscription) -> u64 {
    let backlog = subscription.backlog.unwrap_or_default();
    backlog.urgent_count + backlog.normal_count + backlog.bulk_count
}

fn value(subscription: &v1::Subscription) -> anyhow::Result<Value> {
    messages::of_message("guantong.v1.Subscription", subscription)
}

fn one(subscription: &v1::Subscription) -> anyhow::Result<Report> {
    let backlog = subscription.backlog.unwrap_or_default();
    let counts = format!(
        "{} (urgent {}, normal {}, bulk {})",
        owed(subscription),
        backlog.urgent_count,
        backlog.normal_count,
        backlog.bulk_count
    );
    let line = |name: &str, text: String| (name.to_owned(), text);
    let lines = [
        line("owner 所有者", subscription.owner.clone()),
        line("kinds 种类", kinds(subscription)),
        line("scope 区划", subscription.scope.clone()),
        line(
            "personal data 个人信息",
            if subscription.personal_data { "yes 是" } else { "no 否" }.to_owned(),
        ),
        line("made 创建时间", time(subscription.create_time.as_ref())),
        line("owed 待读取", counts),
        line("oldest since 最早", time(backlog.oldest_time.as_ref())),
        line("reader 读取端", reader(subscription)),
        line("acknowledged 最近确认", time(subscription.acknowledge_time.as_ref())),
    ];
    let text = format!("{}\n{}", short(subscription), list(&lines));
    Ok(Report::done(text, value(subscription)?))
}

fn all(found: &[v1::Subscription]) -> anyhow::Result<Report> {
    let rows: Vec<[String; 7]> = found
        .iter()
        .map(|subscription| {
            let backlog = subscription.backlog.unwrap_or_default();
            [
                short(subscription),
                subscription.owner.clone(),
                kinds(subscription),
                subscription.scope.clone(),
                owed(subscription).to_string(),
                time(backlog.oldest_time.as_ref()),
                reader(subscription),
            ]
        })
        .collect();
    let text = if rows.is_empty() {
        "no subscriptions (无订阅)\n".to_owned()
    } else {
        let headers = [
            "name 名称",
            "owner 所有者",
            "kinds 种类",
            "scope 区划",
            "owed 待读取",
            "oldest 最早",
            "reader 读取端",
        ];
        table(headers, &rows)
    };
    let values: Result<Vec<Value>, _> = found.iter().map(value).collect();
    Ok(Report::done(text, json!({ "subscriptions": values? })))
}
