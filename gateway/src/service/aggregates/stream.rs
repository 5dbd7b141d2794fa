//! Figures as they change. An update is made when counts have changed, never more often than asked, and only while the
//! receiver takes it: a slow one gets fewer updates, not a longer queue.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use guantong_proto::v1;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Extensions, Status};

use super::super::{caller, status};
use super::answered;
use super::ask::{ANSWER_FIGURES_MAX, Asked};
use crate::engine::Shared;
use crate::period::Day;

/// The least time between two answers where none is asked for.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(1);
const INTERVAL_MIN: Duration = Duration::from_millis(100);
const INTERVAL_MAX: Duration = Duration::from_secs(3_600);
/// How often a stream looks whether a day has begun: figures of "now" are then those of a day that is over.
const DAY_LOOK: Duration = Duration::from_secs(30);

/// The least time between two answers that a request asks for.
pub(super) fn interval(asked: Option<&prost_types::Duration>) -> Result<Duration, Status> {
    let Some(asked) = asked else { return Ok(INTERVAL_DEFAULT) };
    let found = Duration::try_from(*asked).ok().filter(|d| (INTERVAL_MIN..=INTERVAL_MAX).contains(d));
    found.ok_or_else(|| {
        status::invalid("min_interval", "min_interval: from 0.1 s to 1 h (更新间隔应在0.1秒至1小时之间)")
    })
}

/// One caller's stream.
pub(super) struct Stream {
    pub(super) shared: Arc<Shared>,
    /// Who asks: the grant is looked up for each answer, since it may change.
    pub(super) caller: Extensions,
    pub(super) query: v1::AggregateQuery,
    pub(super) interval: Duration,
    pub(super) stop: CancellationToken,
}

/// What tells figures of one answer apart.
type Place = (String, String, String, String);

fn place(figure: &v1::Figure) -> Place {
    (figure.division.clone(), figure.measure.clone(), figure.class_name.clone(), figure.period.clone())
}

impl Stream {
    /// Runs until the receiver goes, the node stops, or the question can no longer be answered.
    pub(super) async fn run(self, out: mpsc::Sender<Result<v1::StreamAggregatesResponse, Status>>) {
        let mut tallied = self.shared.tallied();
        let mut sent: HashMap<Place, v1::Figure> = HashMap::new();
        let mut first = true;
        loop {
            tallied.mark_unchanged();
            let day = self.today();
            match self.changed(&mut sent).await {
                Ok(answer) if !first && answer.figures.is_empty() => {}
                Ok(answer) => {
                    if out.send(Ok(answer)).await.is_err() {
                        return;
                    }
                }
                Err(status) => {
                    let _ = out.send(Err(status)).await;
                    return;
                }
            }
            first = false;
            let next = async {
                tokio::time::sleep(self.interval).await;
                loop {
                    match tokio::time::timeout(DAY_LOOK, tallied.changed()).await {
                        Ok(Ok(())) => return true,
                        Ok(Err(_)) => return false,
                        Err(_) if self.today() != day => return true,
                        Err(_) => {}
                    }
                }
            };
            tokio::select! {
                goes_on = next => if !goes_on { return },
                () = out.closed() => return,
                () = self.stop.cancelled() => return,
            }
        }
    }

    fn today(&self) -> Day {
        Day::of_ms((self.shared.environment.now_ms)())
    }

    /// The figures that are not as they were sent last.
    async fn changed(
        &self,
        sent: &mut HashMap<Place, v1::Figure>,
    ) -> Result<v1::StreamAggregatesResponse, Status> {
        let grant = caller::granted(&self.shared, &self.caller)?;
        let asked = Asked::read(&self.shared, &grant, Some(&self.query), ANSWER_FIGURES_MAX)?;
        let answer = answered(&self.shared, &asked).await?;
        let mut figures = Vec::new();
        for figure in answer.figures {
            let known = sent.get_mut(&place(&figure));
            match known {
                Some(known) if *known == figure => continue,
                Some(known) => *known = figure.clone(),
                None => drop(sent.insert(place(&figure), figure.clone())),
            }
            figures.push(figure);
        }
        let (read_time, completeness) = (answer.read_time, answer.completeness);
        Ok(v1::StreamAggregatesResponse { figures, read_time, completeness })
    }
}
