//! `backstop logs -f` on a run that goes on.

use crate::project::Project;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::Stdio;

fn fifo(project: &Project, name: &str) -> PathBuf {
    let path = project.path().join(name);
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    path
}

#[test]
fn a_live_run_is_followed_over_its_tries_to_its_end() {
    let project = Project::with_tasks(
        "  tell:\n    retries: 1\n    retry_delay: 0\n    shell: |\n      echo up > up\n      echo first words\n      read go < gate\n      \
         if [ -e again ]; then echo last words; else touch again; exit 1; fi\n",
    );
    let (up, gate) = (fifo(&project, "up"), fifo(&project, "gate"));
    let running = project.start(&["run", "d"]);
    // Ends when the shell runs: by then the store has its start.
    std::fs::read(&up).unwrap();
    let mut following =
        project.command(&["logs", "latest", "tell", "--follow"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut shown = BufReader::new(following.stdout.take().unwrap());
    let mut heard = String::new();
    while !heard.contains("first words") {
        assert!(shown.read_line(&mut heard).unwrap() > 0, "it ended before the task did: {heard}");
    }
    assert!(following.try_wait().unwrap().is_none(), "the task goes on, and so does who follows it");
    std::fs::write(&gate, "go\n").unwrap();
    std::fs::read(&up).unwrap();
    std::fs::write(&gate, "go\n").unwrap();
    shown.read_to_string(&mut heard).unwrap();
    let mut told = String::new();
    following.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!(following.wait().unwrap().code(), Some(0), "{told}");
    assert_eq!(heard.matches("first words").count(), 2, "{heard}");
    assert_eq!(heard.matches("last words").count(), 1, "{heard}");
    assert!(told.contains("try 2"), "{told}");
    let (code, said) = running.end();
    assert_eq!(code, Some(0), "{said}");
    // What was followed is what is kept.
    let kept =
        format!("{}{}", project.data(&["logs", "latest", "tell", "--try", "1"]), project.data(&["logs", "latest", "tell"]));
    assert_eq!(heard, kept);
}
