//! Starts the service, kills it at a random moment, starts it again; notes how soon it serves and how soon the runs go on.

use crate::load::Load;
use crate::service::{Service, ask, get, standing};
use crate::work::Work;
use rand::RngExt as _;
use rand::rngs::StdRng;
use std::fmt;
use std::time::{Duration, Instant};

/// The longest that a service lives before it is killed, once it serves.
const LIFE_MAX: Duration = Duration::from_millis(1500);
/// When it is killed while it starts: this long after exec, at most.
const START_LIFE_MAX: Duration = Duration::from_millis(250);
/// How long nothing may happen at the end while runs are unfinished.
const PATIENCE: Duration = Duration::from_secs(120);
/// When nothing has happened for so long, it is told what is waited for.
const SLOW: Duration = Duration::from_secs(8);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);

pub(crate) struct Killer<'a> {
    pub(crate) work: &'a Work,
    pub(crate) load: &'a Load<'a>,
    pub(crate) random: &'a mut StdRng,
}

/// What was done, and how long it took to come back.
#[derive(Default)]
pub(crate) struct Kills {
    serving: u64,
    starting: u64,
    twice: u64,
    /// From exec to the answer of /health.
    to_serve: Vec<Duration>,
    /// From exec until no run that was left waits any more.
    to_resume: Vec<Duration>,
    /// Unfinished runs found at a start.
    left: Vec<usize>,
}

impl Kills {
    fn all(&self) -> u64 {
        self.serving + self.starting + self.twice
    }
}

impl Killer<'_> {
    /// Until it was killed so often and, left alone at last, every run is over.
    pub(crate) fn kill(mut self, wanted: u64, has_load_ended: impl Fn() -> bool) -> Kills {
        let mut kills = Kills::default();
        self.live_until_busy(&mut kills, &has_load_ended);
        while kills.all() < wanted && !has_load_ended() {
            match self.random.random_range(0..100) {
                0..70 => {
                    self.live(LIFE_MAX, &mut kills);
                    kills.serving += 1;
                }
                70..85 => {
                    self.live_briefly();
                    kills.starting += 1;
                }
                _ => {
                    self.live(LIFE_MAX / 20, &mut kills);
                    kills.twice += 1;
                }
            }
            if kills.all().is_multiple_of(100) {
                println!("{} kills", kills.all());
            }
        }
        let (mut service, address) = self.serve(&mut kills);
        self.load.moved(Some(address));
        self.load.end();
        self.drain(&mut service);
        service.terminate();
        kills
    }

    /// Starts it, and waits until it serves.
    pub(crate) fn serve(&self, kills: &mut Kills) -> (Service, String) {
        let mut service = Service::start(self.work.project());
        let address = service.address();
        let health = ask(&address, "GET", "/health", None);
        let health = health.unwrap_or_else(|| panic!("no answer to /health:\n{}", service.heard()));
        assert_eq!(health.status, 200, "{}", health.body);
        kills.to_serve.push(service.started.elapsed());
        (service, address)
    }

    /// The first life: until as many runs go on as shall.
    fn live_until_busy(&self, kills: &mut Kills, has_load_ended: impl Fn() -> bool) {
        let (service, address) = self.serve(kills);
        self.load.moved(Some(address));
        self.wait_until_busy(has_load_ended);
        self.load.moved(None);
        service.kill();
        kills.serving += 1;
    }

    /// Until as many runs go on as shall.
    pub(crate) fn wait_until_busy(&self, has_load_ended: impl Fn() -> bool) {
        while !self.load.is_full() && !has_load_ended() {
            sleep(LOOK_EVERY);
        }
    }

    /// A life that ends while it serves.
    fn live(&mut self, life_max: Duration, kills: &mut Kills) {
        let (service, address) = self.serve(kills);
        self.load.moved(Some(address.clone()));
        let ends = Instant::now() + life_max.mul_f64(self.random.random_range(0.0..1.0));
        let mut has_resumed = false;
        while let Some(rest) = ends.checked_duration_since(Instant::now()) {
            if !has_resumed && standing(&address).is_some_and(|now| now.queued + now.hindered == 0) {
                has_resumed = true;
                kills.to_resume.push(service.started.elapsed());
            }
            sleep(if has_resumed { rest } else { rest.min(LOOK_EVERY) });
        }
        kills.left.extend(service.left());
        self.load.moved(None);
        service.kill();
    }

    /// A life that ends while it starts.
    fn live_briefly(&mut self) {
        let service = Service::start(self.work.project());
        sleep(START_LIFE_MAX.mul_f64(self.random.random_range(0.0..1.0)));
        service.kill();
    }

    /// Waits until every run is over.
    pub(crate) fn drain(&self, service: &mut Service) {
        let address = &service.address();
        for target in &self.work.targets {
            let path = format!("/api/v1/dags/tick_{}", target.name);
            let body = serde_json::json!({ "paused": true, "who": "soak", "why": "it ends" });
            assert_eq!(ask(address, "PATCH", &path, Some(&body)).unwrap().status, 200);
        }
        let mut last = (usize::MAX, Instant::now());
        let mut is_told = false;
        loop {
            let unfinished = get(address, "/api/v1/runs?unfinished=true&limit=1000").unwrap();
            let unfinished = unfinished["items"].as_array().unwrap();
            let going: Vec<&serde_json::Value> =
                unfinished.iter().filter(|run| !is_tick(run) || run["state"] != "queued").collect();
            if going.is_empty() {
                return;
            }
            let stuck = going.iter().filter(|run| run["state"] == "stuck").count();
            self.load.resolve_what_is_stuck(address, stuck);
            if going.len() != last.0 {
                last = (going.len(), Instant::now());
            }
            if last.1.elapsed() > SLOW && !std::mem::replace(&mut is_told, true) {
                println!("nothing has ended for {SLOW:?}:\n{}", why(address, &going));
            }
            assert!(last.1.elapsed() < PATIENCE, "nothing goes on:\n{}\n{}", why(address, &going), service.heard());
            sleep(LOOK_EVERY * 50);
        }
    }
}

/// A run that a timetable made. One that waits when its DAG is paused has done nothing.
pub(crate) fn is_tick(run: &serde_json::Value) -> bool {
    run["dag"].as_str().is_some_and(|dag| dag.starts_with("tick_"))
}

/// Why the first of these runs do not go on.
fn why(address: &str, runs: &[&serde_json::Value]) -> String {
    let tell = |run: &&serde_json::Value| {
        let id = run["run_id"].as_str().unwrap();
        let why = get(address, &format!("/api/v1/runs/{id}/why")).unwrap_or_default();
        let tasks = get(address, &format!("/api/v1/runs/{id}/tasks")).unwrap_or_default();
        format!("{run}\n  {why}\n  {tasks}\n")
    };
    runs.iter().take(10).map(tell).collect()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the random moment of the kill is what is tested, and the service is another process"
)]
pub(crate) fn sleep(time: Duration) {
    std::thread::sleep(time);
}

impl fmt::Display for Kills {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.all() == 0 {
            return tell_times(f, "starts that came to serve", &self.to_serve);
        }
        writeln!(f, "{:<52}{:>8}", "kill -9 in all", self.all())?;
        writeln!(f, "{:<52}{:>8}", "  while it served", self.serving)?;
        writeln!(f, "{:<52}{:>8}", "  while it started", self.starting)?;
        writeln!(f, "{:<52}{:>8}", "  again, soon after it served", self.twice)?;
        let mut left = self.left.clone();
        left.sort_unstable();
        let middle = left.get(left.len() / 2).copied().unwrap_or(0);
        writeln!(f, "{:<52}{middle:>8}", "unfinished runs found at a start, median")?;
        writeln!(f, "{:<52}{:>8}", "  most", left.last().copied().unwrap_or(0))?;
        tell_times(f, "starts that came to serve", &self.to_serve)?;
        tell_times(f, "starts after which every run went on", &self.to_resume)
    }
}

fn tell_times(f: &mut fmt::Formatter<'_>, what: &str, times: &[Duration]) -> fmt::Result {
    let mut times = times.to_vec();
    times.sort_unstable();
    let at =
        |share: usize| times.get((times.len() * share / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default();
    let within = times.iter().filter(|time| **time <= Duration::from_secs(1)).count();
    writeln!(f, "{what:<52}{:>8}", times.len())?;
    writeln!(f, "{:<52}{within:>8}", "  within 1 s of exec")?;
    writeln!(f, "{:<52}{:>5} ms", "  median", at(50).as_millis())?;
    writeln!(f, "{:<52}{:>5} ms", "  p99", at(99).as_millis())?;
    writeln!(f, "{:<52}{:>5} ms", "  longest", at(100).as_millis())
}
