//! Sensors: one look an attempt. Between two looks the instance holds no slot.

use super::query::first_value_is_true;
use super::{Attempt, Outcome, http, query};
use crate::failure::{FailureExt, failure, of_template};
use backstop_core::event::FailureClass;
use backstop_project::definition::{Sensor, SensorBy};
use jiff::{SignedDuration, Timestamp};

/// Looks once.
pub(crate) async fn run(attempt: &mut Attempt, sensor: &Sensor) -> Outcome {
    let mut wake = None;
    let holds = match &sensor.look {
        SensorBy::Sql { sql, parameters, fail_on_empty } => match query::rows(attempt, None, sql, parameters, 1).await {
            Ok(rows) if rows.rows.is_empty() && *fail_on_empty => {
                return Outcome::Failed(
                    failure(FailureClass::Permanent, "the sensor's query gave no row (`fail_on_empty` is set)")
                        .effect("nothing was changed"),
                );
            }
            Ok(rows) => first_value_is_true(&rows),
            Err(outcome) => return outcome,
        },
        SensorBy::File(path) => match attempt.shared.renderer.render(path, &attempt.context) {
            Ok(path) => tokio::fs::try_exists(attempt.shared.project.root.join(path)).await.unwrap_or(false),
            Err(error) => return Outcome::Failed(of_template(&error)),
        },
        SensorBy::Http(request) => match http::look(attempt, request).await {
            Ok(holds) => holds,
            Err(outcome) => return outcome,
        },
        SensorBy::Time(time) => {
            let text = match attempt.shared.renderer.render(time, &attempt.context) {
                Ok(text) => text,
                Err(error) => return Outcome::Failed(of_template(&error)),
            };
            match text.trim().parse::<Timestamp>() {
                Ok(at) => {
                    wake = Some(at);
                    attempt.shared.clock.now() >= at
                }
                Err(error) => {
                    return Outcome::Failed(
                        failure(FailureClass::Permanent, format!("`{}` is not a point in time: {error}", text.trim()))
                            .effect("nothing was changed")
                            .hint("write it as 2025-05-01T06:00:00Z"),
                    );
                }
            }
        }
    };
    if holds { Outcome::done() } else { wait(attempt, sensor, wake) }
}

fn wait(attempt: &Attempt, sensor: &Sensor, wake: Option<Timestamp>) -> Outcome {
    let now = attempt.shared.clock.now();
    let since = attempt.waiting_since.unwrap_or(now);
    let after = |start: Timestamp, wait: std::time::Duration| {
        SignedDuration::try_from(wait).ok().and_then(|wait| start.checked_add(wait).ok()).unwrap_or(Timestamp::MAX)
    };
    let gives_up = after(since, sensor.timeout);
    if now >= gives_up {
        let text = format!("its condition did not hold within {:?}", sensor.timeout);
        return match sensor.soft_fail {
            true => Outcome::Skipped(text),
            false => Outcome::Failed(failure(FailureClass::Final, text).effect("nothing was changed")),
        };
    }
    Outcome::Deferred(wake.unwrap_or_else(|| after(now, sensor.poke_interval)).min(gives_up))
}
