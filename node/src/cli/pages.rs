//! Lists that come in pages: asks for one page after the other. It knows no command, and prints nothing.

use std::fmt::Display;

use guantong_proto::v1;

use super::problem;
use crate::client::Client;

/// Entries asked for at a time, where an entry is small.
pub(crate) const PAGE_SIZE: i32 = 1_000;
/// Records asked for at a time.
const RECORDS: i32 = 500;

/// Calls `ask` with the token of each page in turn, the first of which is empty. It takes what the page holds and gives
/// back the token of the next one; an empty one ends the list.
///
/// # Errors
/// What `ask` gives.
pub(crate) async fn each(mut ask: impl AsyncFnMut(String) -> anyhow::Result<String>) -> anyhow::Result<()> {
    let mut page_token = String::new();
    loop {
        page_token = ask(page_token).await?;
        if page_token.is_empty() {
            return Ok(());
        }
    }
}

/// Calls `take` with each record of a kind whose home is a division, 12 digits, or one inside it.
///
/// # Errors
/// What the node says, or `take` gives.
pub(crate) async fn records(
    client: &Client,
    kind: &str,
    division: impl Display,
    show_deleted: bool,
    mut take: impl FnMut(v1::Record) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    each(async |page_token| {
        let request = v1::ListRecordsRequest {
            parent: format!("divisions/{division}"),
            kind: kind.to_owned(),
            page_size: RECORDS,
            page_token,
            show_deleted,
        };
        let page = client.records().list_records(request).await.map_err(problem::plain)?.into_inner();
        page.records.into_iter().try_for_each(&mut take)?;
        Ok(page.next_page_token)
    })
    .await
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pages_are_asked_for_until_one_is_the_last() {
        let mut asked = Vec::new();
        each(async |token| {
            asked.push(token);
            Ok(["b", "c", ""][asked.len() - 1].to_owned())
        })
        .await
        .unwrap();
        assert_eq!(asked, ["", "b", "c"]);
    }

    #[tokio::test]
    async fn a_page_that_fails_ends_it() {
        let mut asked = 0;
        let failed = each(async |_| {
            asked += 1;
            anyhow::bail!("the line broke")
        });
        assert!(failed.await.is_err());
        assert_eq!(asked, 1);
    }
}
