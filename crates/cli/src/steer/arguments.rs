//! The command line of what people do to runs.

use clap::{Args, Subcommand};

/// Changes a run that nobody drives, or says why a task of it waits.
#[derive(Debug, Subcommand)]
pub(crate) enum SteerCommand {
    /// Run tasks again from their first segment, also those that succeeded: their effects take place once more
    Clear(ClearArgs),
    /// Go on from where a run failed: what failed goes on behind what it committed, and what did not run because of it runs
    Retry(RetryArgs),
    /// Set the outcome of tasks; it says nothing of what took effect
    Mark(MarkArgs),
    /// Say why a task is not running
    Why {
        /// The run's id, the beginning of it, or `latest`
        run: String,
        /// The task, such as `load` or `load[3]`
        task: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ClearArgs {
    /// The run's id, the beginning of it, or `latest`
    pub(crate) run: String,
    /// Tasks, groups, or instances such as `load[3]` [default: all]
    #[arg(value_name = "TASK")]
    pub(crate) tasks: Vec<String>,
    /// And all tasks before them
    #[arg(long)]
    pub(crate) upstream: bool,
    /// And all tasks behind them
    #[arg(long)]
    pub(crate) downstream: bool,
    /// Of these, only what is failed or upstream_failed
    #[arg(long)]
    pub(crate) only_failed: bool,
    /// Of these, only what is running
    #[arg(long)]
    pub(crate) only_running: bool,
    /// List what would run again, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Why; kept in the run's log
    #[arg(long, value_name = "TEXT", required_unless_present = "dry_run")]
    pub(crate) reason: Option<String>,
    /// Who [default: the user of the operating system]
    #[arg(long, value_name = "NAME")]
    pub(crate) who: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RetryArgs {
    /// The run's id, the beginning of it, or `latest`
    pub(crate) run: String,
    /// List what would run again, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Why; kept in the run's log
    #[arg(long, value_name = "TEXT", required_unless_present = "dry_run")]
    pub(crate) reason: Option<String>,
    /// Who [default: the user of the operating system]
    #[arg(long, value_name = "NAME")]
    pub(crate) who: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct MarkArgs {
    /// The run's id, the beginning of it, or `latest`
    pub(crate) run: String,
    /// Tasks, groups, or instances such as `load[3]`
    #[arg(value_name = "TASK", required = true)]
    pub(crate) tasks: Vec<String>,
    /// As succeeded
    #[arg(long, required_unless_present = "failed", conflicts_with = "failed")]
    pub(crate) success: bool,
    /// As failed
    #[arg(long)]
    pub(crate) failed: bool,
    /// Why; kept in the run's log
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// Who [default: the user of the operating system]
    #[arg(long, value_name = "NAME")]
    pub(crate) who: Option<String>,
}
