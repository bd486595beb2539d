//! Where lines go, and that they come back in order, wherever they went.

use super::*;
use backstop_core::TaskId;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

struct Written {
    root: tempfile::TempDir,
    writer: LogWriter,
}

impl Written {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        Self { writer: LogWriter::start(Some(root.path().to_owned())), root }
    }

    fn of(&self, run: &str) -> Logs {
        Logs::new(self.writer.clone(), RunId::new(run), Arc::new(Redactor::default()))
    }

    fn read(&self, run: &str, task: &str, since: Timestamp) -> String {
        let mut reader = LogReader::new(self.root.path(), &RunId::new(run), since, &InstanceId::single(task.into()), 1);
        let mut text = String::new();
        loop {
            let lines = reader.read_new().unwrap();
            if lines.is_empty() {
                return text;
            }
            text.push_str(&String::from_utf8(lines).unwrap());
        }
    }

    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for folder in std::fs::read_dir(self.root.path()).unwrap() {
            let folder = folder.unwrap();
            for file in std::fs::read_dir(folder.path()).unwrap() {
                names.push(format!("{}/{}", folder.file_name().display(), file.unwrap().file_name().display()));
            }
        }
        names.sort();
        names
    }
}

#[tokio::test]
async fn runs_that_say_little_share_the_file_of_the_hour() {
    let written = Written::new();
    let since = at("2026-11-22T22:59:59Z");
    let (first, second) = (written.of("run-0001"), written.of("run-0002"));
    let (of_first, of_second) =
        (first.of(&InstanceId::single("load".into()), 1), second.of(&InstanceId::single("load".into()), 1));
    of_first.line(since, "info", "begun").await;
    of_second.line(since, "info", "another's").await;
    of_first.line(at("2026-11-22T23:00:00Z"), "info", "done\nwell").await;
    first.end().await;
    second.end().await;
    assert_eq!(written.names(), ["hours/2026-11-22T22.log", "hours/2026-11-22T23.log"]);
    insta::assert_snapshot!(written.read("run-0001", "load", since), @r"
    2026-11-22T22:59:59.000Z info  begun
    2026-11-22T23:00:00.000Z info  done
    2026-11-22T23:00:00.000Z info  well
    ");
    assert_eq!(log_tries(written.root.path(), &RunId::new("run-0001"), since, &InstanceId::single("load".into())), [1]);
    assert_eq!(log_tries(written.root.path(), &RunId::new("run-0003"), since, &InstanceId::single("load".into())), [0; 0]);
    assert_eq!(
        written.read("run-0001", "load", at("2026-11-22T23:00:00Z")).lines().count(),
        2,
        "older hours are not looked through"
    );
    let mut needed = NeededHours::default();
    needed.add(at("2026-11-22T21:30:00Z"), at("2026-11-22T22:00:00Z"));
    assert_eq!(forget_hours(written.root.path(), at("2026-11-22T23:30:00Z"), &needed).unwrap(), 0);
    assert!(forget_hours(written.root.path(), at("2026-11-22T23:30:00Z"), &NeededHours::default()).unwrap() > 0);
    assert_eq!(written.names(), ["hours/2026-11-22T23.log"]);
}

#[tokio::test]
async fn a_run_that_says_more_goes_on_in_its_own_file() {
    let written = Written::new();
    let now = at("2026-11-22T22:00:00Z");
    let logs = written.of("run-0001");
    // Many tries, each below what gives a try its own file.
    for task in 0..100 {
        let log = logs.of(&InstanceId::single(TaskId::new(format!("task_{task}"))), 1);
        for line in 0..10 {
            log.line(now, "info", &format!("{line} {}", "x".repeat(100))).await;
        }
    }
    logs.end().await;
    assert_eq!(written.names(), ["hours/2026-11-22T22.log", "run-0001/run.log"]);
    for task in 0..100 {
        let text = written.read("run-0001", &format!("task_{task}"), now);
        let numbers: Vec<&str> = text.lines().map(|line| line.split_whitespace().nth(2).unwrap()).collect();
        assert_eq!(numbers, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    }
    // Begun again: it keeps to its file.
    let again = written.of("run-0001");
    again.of(&InstanceId::single("later".into()), 1).line(now, "info", "more").await;
    again.end().await;
    assert!(std::fs::read_to_string(written.root.path().join("run-0001/run.log")).unwrap().contains("later.try-1\t"));
}

#[tokio::test]
async fn a_try_that_says_much_has_a_file_with_all_of_it() {
    let written = Written::new();
    let now = at("2026-11-22T22:00:00Z");
    let logs = written.of("run-0001");
    let log = logs.of(&InstanceId::single("loud".into()), 1);
    for line in 0..1000 {
        log.line(now, "info", &format!("{line} {}", "x".repeat(100))).await;
    }
    log.close().await;
    logs.end().await;
    assert_eq!(written.names(), ["hours/2026-11-22T22.log", "run-0001/loud.try-1.log"]);
    let text = written.read("run-0001", "loud", now);
    assert!(text.lines().zip(0..1000).all(|(line, number)| line.split_whitespace().nth(2) == Some(number.to_string().as_str())));
    assert_eq!(text.lines().count(), 1000);
}
