//! Runs and their events as people may see them. The log keeps results, items and parameters whole, because tasks read them; who looks on is
//! shown them without secrets.

use super::Redactor;
use super::literal::MASK;
use backstop_core::Event;
use backstop_core::event::SkipCause;
use backstop_project::is_secret_key;
use backstop_store::Recorded;
use serde_json::Value;
use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;

/// An event without known secrets: the only way to the shapes that machines read of it.
#[derive(Debug)]
pub struct Masked<'e>(Cow<'e, Recorded>);

impl Deref for Masked<'_> {
    type Target = Recorded;

    fn deref(&self) -> &Recorded {
        &self.0
    }
}

impl Redactor {
    /// Knows the texts among a run's parameters (JSON) whose names say that they are secret.
    pub fn for_params(params: &str) -> Self {
        if params == "{}" {
            return Self::default();
        }
        let mut found = Vec::new();
        if let Ok(params) = serde_json::from_str::<Value>(params) {
            find_named(&params, &mut found);
        }
        Self::for_secrets(found.iter().map(String::as_str))
    }

    /// Knows what this one knows, and of a run with these parameters what they say to be secret.
    pub fn of_run(self: &Arc<Self>, params: &str) -> Arc<Self> {
        let own = Self::for_params(params);
        if own.is_empty() {
            return self.clone();
        }
        Arc::new(Self::longest_first(self.secrets.iter().cloned().chain(own.secrets).collect()))
    }

    /// True when it knows no secret.
    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty()
    }

    /// An event as people may see it.
    pub fn mask<'e>(&self, recorded: &'e Recorded) -> Masked<'e> {
        let masked = self.masked_event(&recorded.event).map(|event| Recorded { event, ..recorded.clone() });
        Masked(masked.map_or(Cow::Borrowed(recorded), Cow::Owned))
    }

    /// JSON as people may see it: without known secrets, and without what stands under names that say that it is secret. What is not given
    /// stays so.
    pub fn clean_named(&self, value: &Value) -> Value {
        self.masked_value(value, true)
    }

    /// `None` where nothing in it is secret.
    fn masked_event(&self, event: &Event) -> Option<Event> {
        let changed = |text: &str| matches!(self.clean(text), Cow::Owned(_));
        let clean = |text: &str| self.clean(text).into_owned();
        match event {
            Event::RunCreated(header) => {
                let params = self.masked_params(&header.params)?;
                let mut header = header.clone();
                Arc::make_mut(&mut header).params = params;
                Some(Event::RunCreated(header))
            }
            Event::TaskExpanded { task, items } => {
                let masked: Vec<Option<Arc<str>>> = items.iter().map(|item| self.masked_json(item)).collect();
                masked.iter().any(Option::is_some).then(|| {
                    let items = masked.into_iter().zip(items).map(|(masked, item)| masked.unwrap_or_else(|| item.clone()));
                    Event::TaskExpanded { task: task.clone(), items: items.collect() }
                })
            }
            Event::SegmentCommitted { instance, try_number, commit } => {
                let result = commit.result.as_deref().and_then(|result| self.masked_json(result))?;
                let mut commit = commit.clone();
                Arc::make_mut(&mut commit).result = Some(result);
                Some(Event::SegmentCommitted { instance: instance.clone(), try_number: *try_number, commit })
            }
            Event::AttemptSucceeded { instance, try_number, result, follow } => {
                let result = result.as_deref().and_then(|result| self.masked_json(result))?;
                let (instance, follow) = (instance.clone(), follow.clone());
                Some(Event::AttemptSucceeded { instance, try_number: *try_number, result: Some(result), follow })
            }
            Event::AttemptHeld { instance, try_number, statements, result } => {
                let result = result.as_deref().and_then(|result| self.masked_json(result))?;
                let (instance, statements) = (instance.clone(), statements.clone());
                Some(Event::AttemptHeld { instance, try_number: *try_number, statements, result: Some(result) })
            }
            Event::TaskSkipped { instance, cause: SkipCause::Own(reason) } => {
                changed(reason).then(|| Event::TaskSkipped { instance: instance.clone(), cause: SkipCause::Own(clean(reason)) })
            }
            Event::OperatorActed { who, why, what } => (changed(who) || changed(why) || changed(what))
                .then(|| Event::OperatorActed { who: clean(who), why: clean(why), what: clean(what) }),
            Event::CancelRequested { reason, cause } => {
                changed(reason).then(|| Event::CancelRequested { reason: clean(reason), cause: *cause })
            }
            Event::InstanceCancelRequested { instance, reason, then } => changed(reason)
                .then(|| Event::InstanceCancelRequested { instance: instance.clone(), reason: clean(reason), then: *then }),
            // Failures, statements and notices were masked before they were kept. The rest has names, numbers and times.
            Event::AttemptFailed { .. }
            | Event::GroupRolledBack { .. }
            | Event::AttemptUnknown { .. }
            | Event::CallbackFinished { .. }
            | Event::AnomalyNoticed { .. }
            | Event::TaskSkipped { .. }
            | Event::RunStarted { .. }
            | Event::RunResumed { .. }
            | Event::TaskScheduled { .. }
            | Event::AttemptStarted { .. }
            | Event::AttemptDeferred { .. }
            | Event::UnknownResolved { .. }
            | Event::RetryScheduled { .. }
            | Event::TimerFired { .. }
            | Event::TaskUpstreamFailed { .. }
            | Event::CallbackScheduled { .. }
            | Event::RunStuck { .. }
            | Event::RunReopened
            | Event::InstancesCleared { .. }
            | Event::TaskUnexpanded { .. }
            | Event::InstanceMarked { .. }
            | Event::AssetsUpdated { .. }
            | Event::DeadlineAtRisk { .. }
            | Event::DeadlineMissed { .. }
            | Event::RunPinned { .. }
            | Event::RunSucceeded
            | Event::RunFailed
            | Event::RunCancelled => None,
        }
    }

    fn masked_params(&self, params: &str) -> Option<Arc<str>> {
        if params == "{}" {
            return None;
        }
        let value: Value = serde_json::from_str(params).ok()?;
        let masked = self.clean_named(&value);
        (masked != value).then(|| masked.to_string().into())
    }

    /// JSON by its values, so that it stays JSON; `None` where no secret stands in it.
    fn masked_json(&self, text: &str) -> Option<Arc<str>> {
        // Whoever wrote it may have escaped more characters than we do.
        let is_suspect =
            !self.is_empty() && (text.contains("\\u") || text.contains("\\/") || matches!(self.clean(text), Cow::Owned(_)));
        if !is_suspect {
            return None;
        }
        match serde_json::from_str::<Value>(text) {
            Ok(value) => {
                let masked = self.masked_value(&value, false);
                (masked != value).then(|| masked.to_string().into())
            }
            Err(_) => Some(self.clean(text).into()),
        }
    }

    fn masked_value(&self, value: &Value, by_name: bool) -> Value {
        match value {
            Value::String(text) => Value::from(self.clean(text)),
            Value::Number(number) if self.clean(&number.to_string()) == MASK => Value::from(MASK),
            Value::Array(items) => items.iter().map(|item| self.masked_value(item, by_name)).collect(),
            Value::Object(fields) => {
                let of_field = |(name, field): (&String, &Value)| {
                    let is_secret = by_name && !field.is_null() && is_secret_key(name);
                    let field = if is_secret { Value::from(MASK) } else { self.masked_value(field, by_name) };
                    (self.clean(name).into_owned(), field)
                };
                fields.iter().map(of_field).collect()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }
}

/// The texts in a value under names that say that they are secret. A number there may as well be a count of tokens: it is masked where it
/// stands, and not wherever it comes up.
fn find_named(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| find_named(item, found)),
        Value::Object(fields) => {
            for (name, field) in fields {
                if is_secret_key(name) { find_texts(field, found) } else { find_named(field, found) }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn find_texts(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| find_texts(item, found)),
        Value::Object(fields) => fields.values().for_each(|field| find_texts(field, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backstop_core::{InstanceId, TaskId};
    use serde_json::json;

    fn redactor() -> Redactor {
        Redactor::for_secrets(["hunter22", "sch\u{f6}n-7", "4711471"].into_iter())
    }

    fn told(event: Event) -> String {
        let recorded = Recorded { seq: 1, at: jiff::Timestamp::UNIX_EPOCH, event };
        format!("{:?}", redactor().mask(&recorded).event)
    }

    #[test]
    fn results_and_items_are_masked_and_stay_json() {
        let instance = InstanceId { task: TaskId::new("t"), map_index: None };
        let result = |result: Value| Some(Arc::from(result.to_string()));
        let event = |result| Event::AttemptSucceeded { instance: instance.clone(), try_number: 1, result, follow: None };
        let clear = json!({"rows": [{"n": 4711471, "near": 94711471, "t": "a hunter22 b"}], "hunter22": true});
        let masked = json!({"rows": [{"n": "***", "near": 94711471, "t": "a *** b"}], "***": true});
        assert_eq!(told(event(result(clear))), format!("{:?}", event(result(masked))));
        let escaped = told(event(Some("\"sch\\u00f6n-7\"".into())));
        assert!(escaped.contains("***") && !escaped.contains("f6n"), "{escaped}");
        assert!(told(event(Some("not JSON: hunter22".into()))).contains("not JSON: ***"));
        let plain = event(result(json!({"password": "x"})));
        assert_eq!(told(plain.clone()), format!("{plain:?}"), "a column of this name is data");
        let items = told(Event::TaskExpanded { task: TaskId::new("t"), items: vec!["1".into(), "\"hunter22\"".into()] });
        assert!(items.contains("***") && !items.contains("hunter22"), "{items}");
    }

    #[test]
    fn words_of_people_are_masked() {
        let what = |text: &str| Event::OperatorActed { who: text.into(), why: text.into(), what: text.into() };
        assert_eq!(told(what("hunter22")), format!("{:?}", what("***")));
        let cancel =
            |reason: &str| Event::CancelRequested { reason: reason.into(), cause: backstop_core::event::CancelCause::Asked };
        assert_eq!(told(cancel("by hunter22")), format!("{:?}", cancel("by ***")));
    }

    #[test]
    fn parameters_are_masked_by_name_and_their_texts_wherever_they_come_up() {
        let params =
            json!({"password": "a-b-c-d", "api_token": null, "token_count": 1000, "day": "hunter22", "m": {"secret": ["x"]}});
        let shown = json!({"password": "***", "api_token": null, "token_count": "***", "day": "***", "m": {"secret": "***"}});
        assert_eq!(redactor().clean_named(&params), shown);
        let of_run = Arc::new(redactor()).of_run(&params.to_string());
        assert_eq!(of_run.clean("a-b-c-d 1000 hunter22"), "*** 1000 ***");
        let known = Arc::new(redactor());
        assert!(Arc::ptr_eq(&known.of_run("{}"), &known) && Arc::ptr_eq(&known.of_run("{\"n\":1}"), &known));
    }
}
