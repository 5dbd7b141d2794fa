//! Counting this node's own records: at each start, and once a day. What is kept of records (counts, checksums of links) is
//! changed by differences, so it says nothing of a record that was lost or damaged on the disk. This is what notices, and
//! puts it right; the links then find out what is missing. Until the first count is over no link is said to be equal.

use std::sync::Arc;
use std::time::Duration;

use guantong_proto::v1;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::aggregates::Recount;
use crate::engine::Engine;

/// From one count to the next.
const EVERY: Duration = Duration::from_secs(24 * 3_600);
/// The same where the store could not be read.
const RETRY: Duration = Duration::from_secs(10);

/// Counts until `stop`, never beside another count that repairs.
pub(super) async fn count_own(engine: Engine, recounts: Arc<Semaphore>, stop: CancellationToken) {
    loop {
        let alone = async {
            let Ok(_alone) = recounts.acquire().await else { return false };
            count(&engine).await
        };
        let next = tokio::select! {
            counted = alone => if counted { EVERY } else { RETRY },
            () = stop.cancelled() => return,
        };
        tokio::select! {
            () = tokio::time::sleep(next) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Counts everything once. False: the store could not be read to its end.
async fn count(engine: &Engine) -> bool {
    let (out, mut progress) = mpsc::channel::<Result<v1::RecountAggregatesResponse, Status>>(4);
    let (mut counts, mut sums, mut done) = (0, 0, false);
    let heard = async {
        while let Some(Ok(said)) = progress.recv().await {
            (counts, sums) = (said.difference_count, said.checksum_difference_count);
            done |= said.done;
        }
    };
    tokio::join!(Recount::new(engine.clone(), true).run(out), heard);
    let shared = engine.shared();
    if counts + sums > 0 {
        shared.alarm(format!(
            "records of this store are not what was kept of them: {counts} counts and {sums} checksums of links were \
             put right, and the links look for what is missing; check the disk \
             (本节点数据与留存的校验不符，已更正并由链路查找缺失，请检查磁盘)"
        ));
    }
    if done {
        shared.note_counted();
    }
    done
}
