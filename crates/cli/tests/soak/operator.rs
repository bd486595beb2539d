//! The person who says what became of statements that commit by themselves: looks into the database, and tells the service.

use crate::service::{ask, get};
use crate::work::Work;
use serde_json::{Value, json};

/// Resolves each stuck run, and says how many.
pub(crate) fn resolve_what_is_stuck(work: &Work, address: &str) -> u64 {
    let Some(runs) = get(address, "/api/v1/runs?dag=ddl&unfinished=true&limit=1000") else { return 0 };
    let stuck = runs["items"].as_array().unwrap().iter().filter(|run| run["state"] == "stuck");
    stuck.map(|run| resolve(work, address, run)).sum()
}

fn resolve(work: &Work, address: &str, run: &Value) -> u64 {
    let (id, number) = (run["run_id"].as_str().unwrap(), &run["params"]["number"]);
    let Some(tasks) = get(address, &format!("/api/v1/runs/{id}/tasks")) else { return 0 };
    let maria = work.target("maria");
    // The server may go on with a statement whose client is gone.
    let still = format!(
        "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE '% TABLE made_{number}%' AND info NOT LIKE 'SELECT%'"
    );
    if maria.number_if_there(&still) != Some(0) {
        return 0;
    }
    let is_there = format!(
        "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'made_{number}'"
    );
    let Some(is_there) = maria.number_if_there(&is_there).map(|count| count > 0) else { return 0 };
    let mut resolved = 0;
    for task in tasks["items"].as_array().unwrap().iter().filter(|task| task["state"] == "in_doubt") {
        let name = task["task"].as_str().unwrap();
        let took_effect = match name {
            "make" => is_there,
            "remove" => !is_there,
            other => panic!("`{other}` of {id} is in doubt: {tasks}"),
        };
        let body = json!({ "task": name, "took_effect": took_effect, "who": "soak", "why": "the table says so" });
        // It may be killed on the way: then the next look resolves it.
        let answer = ask(address, "POST", &format!("/api/v1/runs/{id}/resolve"), Some(&body));
        resolved += u64::from(answer.is_some_and(|answer| answer.status == 202));
    }
    resolved
}
