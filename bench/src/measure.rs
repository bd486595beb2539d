//! Timing whole processes, pairwise, and the table.

use anyhow::{Context as _, Result, ensure};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Makes this program run one command and print its children's peak memory.
pub(crate) const PEAK_OF: &str = "--peak-of";

/// One line of the table.
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// What came out, with its unit.
    pub(crate) figure: String,
    /// Of what it is compared with.
    pub(crate) against: String,
    /// The ratio, where there is one.
    pub(crate) ratio: String,
    /// What it should be.
    pub(crate) bar: &'static str,
}

/// Median, least and greatest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) median: Duration,
    pub(crate) least: Duration,
    pub(crate) greatest: Duration,
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} to {})", ms(self.median), ms(self.least), ms(self.greatest))
    }
}

/// Milliseconds.
pub(crate) fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// The spread of some times.
pub(crate) fn spread(mut times: Vec<Duration>) -> Spread {
    times.sort();
    Spread { median: times[times.len() / 2], least: times[0], greatest: times[times.len() - 1] }
}

/// The median of the ratios of pairs.
pub(crate) fn median_ratio(pairs: &[(Duration, Duration)]) -> f64 {
    let mut ratios: Vec<f64> = pairs.iter().map(|(a, b)| a.as_secs_f64() / b.as_secs_f64()).collect();
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

/// Runs a command to its end and tells how long the whole process took.
pub(crate) fn time(command: &mut Command) -> Result<Duration> {
    let start = Instant::now();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {command:?}"))?;
    let took = start.elapsed();
    ensure!(
        output.status.success(),
        "{command:?} failed ({}):\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(took)
}

/// Times two commands in turn, A B A B, after one warm-up of each. `before` runs before each one, untimed.
pub(crate) fn pairs(
    rounds: usize,
    mut before: impl FnMut() -> Result<()>,
    mut a: impl FnMut() -> Result<Duration>,
    mut b: impl FnMut() -> Result<Duration>,
) -> Result<Vec<(Duration, Duration)>> {
    let mut pairs = Vec::new();
    for round in 0..=rounds {
        before()?;
        let first = a()?;
        before()?;
        let second = b()?;
        if round > 0 {
            pairs.push((first, second));
        }
    }
    Ok(pairs)
}

/// `--peak-of COMMAND...`: prints the peak resident memory of the command, in KiB, as the kernel accounts it.
pub(crate) fn peak_of(command: Vec<String>) -> Result<()> {
    let (program, arguments) = command.split_first().context("--peak-of needs a command")?;
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::inherit()).status()?;
    ensure!(status.success(), "{program} failed: {status}");
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN)?;
    #[expect(clippy::print_stdout, reason = "this is the program's output")]
    {
        println!("{}", usage.max_rss());
    }
    Ok(())
}

/// The peak resident memory of a command, in MiB.
pub(crate) fn peak(command: &Command) -> Result<f64> {
    let output = Command::new(std::env::current_exe()?)
        .arg(PEAK_OF)
        .arg(command.get_program())
        .args(command.get_args())
        .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().parse::<f64>()? / 1024.0)
}

/// Prints the table as Markdown.
pub(crate) fn print(rows: &[Row]) {
    #[expect(clippy::print_stdout, reason = "this is the program's output")]
    {
        println!("| what | figure | against | ratio | bar |\n| --- | --- | --- | --- | --- |");
        for row in rows {
            println!("| {} | {} | {} | {} | {} |", row.what, row.figure, row.against, row.ratio, row.bar);
        }
    }
}
