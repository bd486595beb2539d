//! `backstop up`: the service.

mod folders;
mod log;

use crate::args::{Place, UpArgs};
use crate::explain::{Exit, Problem};
use crate::paths::{self, Kept};
use crate::service::TOKEN;
use crate::sources::Sources;
use crate::{output, sources, words};
use backstop_project::Severity;
use backstop_runtime::prune::Keep;
use backstop_runtime::service::{self, Broken, Error, Level, Notice, Options, STATEMENTS_END_IN, Service, ServiceLimits};
use backstop_runtime::{LogWriter, SlotLimits, WallClock};
use backstop_server::{Access, Allowed};
use backstop_store::{SqliteStore, Store};
use folders::Folders;
use log::Log;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};

/// How long a service that stops at once is waited for: until the statements have ended, and a moment.
const ENDS_IN: Duration = STATEMENTS_END_IN.saturating_add(Duration::from_secs(1));

/// Serves until it is told to stop.
pub(crate) fn up(arguments: &UpArgs, place: &Place) -> Result<Exit, Problem> {
    let token = token(arguments)?;
    let mut roots = vec![paths::project(place)?];
    for folder in place.projects.iter().skip(1) {
        roots.push(paths::named_project(folder)?);
    }
    if let Some((first, _)) = roots.iter().enumerate().find(|(at, root)| roots[..*at].contains(root)) {
        return Err(Problem::usage(format!("the project {} is named twice", roots[first].display())));
    }
    refuse_namesakes(&roots)?;
    let kept = Kept::of(place, &roots[0]);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Problem::system("start the runtime", &error))?;
    let log = Arc::new(Log::start(arguments.log_level));
    let outcome = runtime.block_on(serve(arguments, token, roots, &kept, &log));
    log.finish();
    // What did not let go in time is found again by its markers.
    runtime.shutdown_background();
    outcome
}

/// Projects are told apart by their names: in metrics, and where a connection is tested.
fn refuse_namesakes(roots: &[PathBuf]) -> Result<(), Problem> {
    if roots.len() < 2 {
        return Ok(());
    }
    let environment = sources::environment();
    let mut named: BTreeMap<String, &PathBuf> = BTreeMap::new();
    for root in roots {
        let name = backstop_project::load_only(&Sources::of_folder(root), &environment, &[]).project.name;
        if let Some(other) = named.insert(name.clone(), root) {
            return Err(Problem::usage(format!("two projects are called `{name}`: {} and {}", other.display(), root.display()))
                .hint(format!("write another `name:` into one of them: {}", root.join(paths::PROJECT_FILE).display())));
        }
    }
    Ok(())
}

async fn serve(
    arguments: &UpArgs,
    token: Option<String>,
    roots: Vec<PathBuf>,
    kept: &Kept,
    log: &Arc<Log>,
) -> Result<Exit, Problem> {
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&kept.store, backstop_store::sqlite::Options::default())?);
    let listener = match TcpListener::bind(arguments.listen).await {
        Ok(listener) => listener,
        // Most often it is the service of this very store that listens there.
        Err(_) if matches!(service::holder(&*store).await, Ok(Some(_))) => return Err(service::refusal(&*store).await.into()),
        Err(error) => {
            let problem = Problem::system(format!("listen at {}", arguments.listen), &error);
            return Err(problem.hint("name another address with --listen"));
        }
    };
    let address = listener.local_addr().map_err(|error| Problem::system("listen", &error))?;
    let mut environment = sources::environment();
    // Also one that came from a file is masked wherever a text leaves the process.
    environment.extend(token.iter().map(|token| (TOKEN.to_owned(), token.clone())));
    let slots = SlotLimits { parallelism: Some(arguments.parallelism), ..SlotLimits::default() };
    let keep = Keep { runs_for: arguments.keep_runs_for, runs: arguments.keep_runs };
    let service = Service::new(Options {
        store,
        loader: Arc::new(Folders::new(roots, environment)),
        clock: Arc::new(WallClock::starting()),
        connect: Arc::new(backstop_connect::connector),
        logs: LogWriter::start(Some(kept.logs.clone())),
        scratch: kept.scratch.clone(),
        limits: ServiceLimits { slots, ..ServiceLimits::default() },
        keep,
        notice: {
            let (up_to, log) = (log.level(), log.clone());
            Notice { up_to, tell: Arc::new(move |level, line: &str| log.line(level, line)) }
        },
        address: address.to_string(),
    })
    .await
    .map_err(refused)?;
    tell_what_is_there(&service, kept, &address.to_string(), keep);
    let (stopped, stop) = watch::channel(false);
    let router = backstop_server::router(service.clone(), access(token, address));
    let serving = tokio::spawn(backstop_server::serve(listener, router, Allowed::default(), async move {
        // The sender lives until the service has let go of its runs: a stream that is read for ever does not hold up the end.
        let mut stop = stop;
        let _ = stop.wait_for(|stopped| *stopped).await;
    }));
    let driving = {
        let service = service.clone();
        tokio::spawn(async move { service.run().await })
    };
    tokio::pin!(serving, driving);
    let exit = until_stopped(&service, driving, serving.as_mut(), Duration::from_secs(arguments.grace), log).await?;
    stopped.send_replace(true);
    // Streams that are read go on for ever: those who read them come back to the next service.
    let _ = tokio::time::timeout(Duration::from_secs(1), serving).await;
    Ok(exit)
}

/// Waits for the first signal, lets runs go, and does not wait beyond the grace or a second signal: then the statements of what still goes on
/// are ended on their servers. A third signal does not wait for that either.
async fn until_stopped(
    service: &Service,
    mut driving: Pin<&mut JoinHandle<Result<(), Broken>>>,
    serving: Pin<&mut JoinHandle<()>>,
    grace: Duration,
    log: &Log,
) -> Result<Exit, Problem> {
    let listen = |kind| signal(kind).map_err(|error| Problem::system("listen to signals", &error));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        ended = driving.as_mut() => return Err(broken(ended)),
        // Nobody could reach it any more, nor see that.
        ended = serving => {
            service.stop_at_once();
            let _ = tokio::time::timeout(ENDS_IN, driving).await;
            let why = ended.err().map_or_else(String::new, |error| error.to_string());
            return Err(Problem::usage("the API of the service ended by itself").cause(why).exit(Exit::Stuck));
        }
    }
    let active = service.counts().active;
    let first = match active {
        0 => String::new(),
        some => format!(": {} let go first (once more to stop at once)", words::count(some, "run")),
    };
    log.line(Level::Info, &format!("stopping{first}"));
    service.stop();
    let ended = tokio::select! {
        ended = driving.as_mut() => Some(ended),
        () = tokio::time::sleep(grace) => None,
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
    };
    if let Some(ended) = ended {
        return if matches!(ended, Ok(Ok(()))) { Ok(Exit::Success) } else { Err(broken(ended)) };
    }
    let left = words::count(service.counts().active, "run");
    log.line(
        Level::Warn,
        &format!("{left} still going on: running statements are ended on their servers; what took effect is found by its markers when the service starts"),
    );
    service.stop_at_once();
    tokio::select! {
        _ = tokio::time::timeout(ENDS_IN, driving) => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(Exit::Success)
}

/// The service ended without being asked. Whoever looks after it starts it again: that is safe at any moment.
fn broken(ended: Result<Result<(), Broken>, JoinError>) -> Problem {
    let why = match ended {
        Ok(Ok(())) => String::new(),
        Ok(Err(broken)) => broken.to_string(),
        Err(error) => error.to_string(),
    };
    Problem::usage("the service ended by itself").cause(why).hint("start it again: runs go on").exit(Exit::Stuck)
}

fn refused(error: Error) -> Problem {
    match error {
        Error::Store(error) => error.into(),
        Error::Run(error) => error.into(),
        other => Problem::usage(other.to_string()),
    }
}

fn tell_what_is_there(service: &Service, kept: &Kept, address: &str, keep: Keep) {
    let catalog = service.catalog();
    let counts = service.counts();
    let errors = catalog.troubles().iter().flat_map(|trouble| &trouble.diagnostics);
    let errors = errors.filter(|diagnostic| diagnostic.severity == Severity::Error).count();
    let mut text = format!(
        "Backstop {} listens at http://{address}\n  store  {}\n  DAGs   {}",
        env!("CARGO_PKG_VERSION"),
        kept.store.display(),
        catalog.dags().len()
    );
    if errors > 0 {
        text.push_str(&format!(", and {} (see `backstop check`)", words::count(errors, "error")));
    }
    if let Some(first) = catalog.not_loaded().first() {
        let many = words::count(catalog.not_loaded().len(), "DAG");
        text.push_str(&format!("\n         {many} not loaded that the store knows: {}", first.because));
    }
    if counts.queued > 0 {
        text.push_str(&format!("\n  runs   {} left by an earlier process, going on", counts.queued));
    }
    if keep.is_all() {
        text.push_str("\n  keeps  all runs (--keep-runs-for 90d and --keep-runs 100 let old ones go)");
    } else {
        text.push_str(&format!("\n  keeps  {keep}"));
    }
    text.push_str(&format!("\n\nTry: curl http://{address}/api/v1/dags\n"));
    output::tell(&text);
}

/// The token, where there is one. Loopback needs none; other addresses do.
fn token(arguments: &UpArgs) -> Result<Option<String>, Problem> {
    let given = match &arguments.token_file {
        Some(file) => Some(
            std::fs::read_to_string(file)
                .map_err(|error| Problem::system(format!("read the token file {}", file.display()), &error))?,
        ),
        None => std::env::var(TOKEN).ok(),
    };
    match given.map(|token| token.trim().to_owned()) {
        Some(token) if token.len() < 16 => {
            Err(Problem::usage("the token is shorter than 16 characters").hint("make one with: openssl rand -hex 32"))
        }
        Some(token) => Ok(Some(token)),
        None if arguments.listen.ip().is_loopback() => Ok(None),
        None => Err(Problem::usage(format!("{} is not loopback: whoever reaches it could run SQL", arguments.listen))
            .hint(format!("give a token with --token-file FILE or {TOKEN}, or listen on 127.0.0.1"))),
    }
}

fn access(token: Option<String>, address: SocketAddr) -> Access {
    match token {
        Some(token) => Access::with_token(token),
        None => Access::loopback(address.ip()),
    }
}
