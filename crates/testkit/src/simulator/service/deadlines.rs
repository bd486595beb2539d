//! What must hold of deadlines: a run that ended behind one has missed it and was told so once, however often the process died, and whether it
//! was driven then or waited. What was told was true.

use crate::simulator::scenario::Scenario;
use backstop_core::Event;
use backstop_core::event::RunType;
use backstop_core::timetable::Moments;
use backstop_store::{Recorded, RunRow, Store};
use jiff::Timestamp;

/// Judges the deadlines of a run that is over. Gives how many of them were told as missed before the run began.
pub(crate) async fn judge(scenario: &Scenario, row: &RunRow, store: &dyn Store) -> Result<usize, String> {
    let recorded = store.events(&row.header.run_id, 0, usize::MAX).await.map_err(|error| error.to_string())?;
    let began = recorded.iter().position(|recorded| matches!(recorded.event, Event::RunStarted { .. }));
    let is_end = |recorded: &&Recorded| matches!(recorded.event, Event::RunSucceeded | Event::RunFailed | Event::RunCancelled);
    let ended = recorded.iter().position(|recorded| is_end(&recorded));
    let ended_at = ended.and_then(|place| recorded.get(place)).map(|recorded| recorded.at);
    let header = &row.header;
    let interval_end = header.data_interval.map(|(_, end)| end);
    let mut moments = Moments {
        planned_at: interval_end.filter(|_| header.run_type == RunType::Scheduled).unwrap_or(header.queued_at),
        logical_date: header.logical_date,
        queued_at: header.queued_at,
        started_at: None,
    };
    let mut told_while_it_waited = 0;
    for (number, deadline) in (0..).zip(&scenario.definition.deadlines) {
        let (missed, foreseen) = (missed(&recorded, number), foreseen(&recorded, number));
        if missed.len() > 1 || foreseen.len() > 1 || foreseen.first() > missed.first() && !missed.is_empty() {
            return Err(format!("deadline {number} was told as missed at {missed:?}, and as one that will be at {foreseen:?}"));
        }
        told_while_it_waited += missed.iter().filter(|(place, _, _)| began.is_none_or(|began| *place < began)).count();
        if let Some((_, at, due_at)) = missed.iter().find(|(_, at, due_at)| at < due_at) {
            return Err(format!("deadline {number} was told as missed at {at}, before {due_at}"));
        }
        // One that was cancelled while it waited, and began when it was retried, ended before it began.
        moments.started_at = began
            .filter(|began| ended.is_none_or(|ended| *began < ended))
            .and_then(|place| recorded.get(place))
            .map(|recorded| recorded.at);
        let due_at = deadline.due_at(&moments);
        if due_at.zip(ended_at).is_some_and(|(due_at, ended_at)| ended_at > due_at) && missed.is_empty() {
            return Err(format!(
                "the run ended at {ended_at:?}, behind its deadline {number} of {due_at:?}, and nobody was told"
            ));
        }
    }
    Ok(told_while_it_waited)
}

/// Place in the log, when, and by when.
type Told = (usize, Timestamp, Timestamp);

fn missed(recorded: &[Recorded], number: u32) -> Vec<Told> {
    let told = |(place, recorded): (usize, &Recorded)| match recorded.event {
        Event::DeadlineMissed { deadline, due_at } if deadline == number => Some((place, recorded.at, due_at)),
        _ => None,
    };
    recorded.iter().enumerate().filter_map(told).collect()
}

fn foreseen(recorded: &[Recorded], number: u32) -> Vec<Told> {
    let told = |(place, recorded): (usize, &Recorded)| match recorded.event {
        Event::DeadlineAtRisk { deadline, due_at, done_at: _ } if deadline == number => Some((place, recorded.at, due_at)),
        _ => None,
    };
    recorded.iter().enumerate().filter_map(told).collect()
}
