//! The command line of what people do to runs.

use crate::service::{Entrance, Signature};
use clap::{ArgGroup, Args, Subcommand};

/// Changes runs, through the service that drives them or where nobody does; or says why one is not further.
#[derive(Debug, Subcommand)]
pub(crate) enum SteerCommand {
    /// Run tasks again from their first segment, also those that succeeded: their effects take place once more
    Clear(ClearArgs),
    /// Go on from where a run failed: what failed goes on behind what it committed, and what did not run because of it runs
    Retry(RetryArgs),
    /// Set the outcome of tasks; it says nothing of what took effect
    Mark(MarkArgs),
    /// End a run, or one task of it: running statements die on their servers
    Cancel(CancelArgs),
    /// Say what became of a task whose outcome nobody knows
    Resolve(ResolveArgs),
    /// Say why a run is not further, or why a task of it is not running
    Why {
        /// The run's id, the beginning of it, or `latest`
        run: String,
        /// The task, such as `load` or `load[3]` [default: the run, and each task that is not done]
        task: Option<String>,
        #[command(flatten)]
        entrance: Entrance,
    },
}

/// Which runs.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// The run's id, the beginning of it, or `latest`; with --from or --to: a DAG
    #[arg(value_name = "RUN|DAG")]
    pub(crate) run: String,
    /// All runs of a DAG from this logical date on
    #[arg(long, value_name = "DATE")]
    pub(crate) from: Option<String>,
    /// All runs of a DAG up to this logical date; a day alone is all of that day
    #[arg(long, value_name = "DATE")]
    pub(crate) to: Option<String>,
}

impl Which {
    /// Whether runs are meant by their dates.
    pub(crate) fn is_range(&self) -> bool {
        self.from.is_some() || self.to.is_some()
    }
}

/// Other runs of the same DAG.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct Around {
    /// Also in the runs of the DAG about earlier dates
    #[arg(long, conflicts_with_all = ["from", "to"])]
    pub(crate) past: bool,
    /// Also in the runs of the DAG about later dates
    #[arg(long, conflicts_with_all = ["from", "to"])]
    pub(crate) future: bool,
}

/// What clearing, retrying and marking are told alike.
#[derive(Debug, Args)]
pub(crate) struct Order {
    #[command(flatten)]
    pub(crate) which: Which,
    /// List what would change, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) signature: Signature,
    #[command(flatten)]
    pub(crate) entrance: Entrance,
}

#[derive(Debug, Args)]
pub(crate) struct ClearArgs {
    #[command(flatten)]
    pub(crate) order: Order,
    /// Tasks, groups, or instances such as `load[3]` [default: all]
    #[arg(value_name = "TASK")]
    pub(crate) tasks: Vec<String>,
    /// And all tasks before them
    #[arg(long)]
    pub(crate) upstream: bool,
    /// And all tasks behind them
    #[arg(long)]
    pub(crate) downstream: bool,
    #[command(flatten)]
    pub(crate) around: Around,
    /// Of these, only what is failed or upstream_failed
    #[arg(long)]
    pub(crate) only_failed: bool,
    /// Of these, only what is running
    #[arg(long)]
    pub(crate) only_running: bool,
    /// Let the run go on with the project's files as they are now, not with those that it has
    #[arg(long)]
    pub(crate) current_files: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RetryArgs {
    #[command(flatten)]
    pub(crate) order: Order,
    /// Let the run go on with the project's files as they are now, not with those that it has
    #[arg(long)]
    pub(crate) current_files: bool,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("as").required(true).args(["success", "failed"])))]
pub(crate) struct MarkArgs {
    #[command(flatten)]
    pub(crate) order: Order,
    /// Tasks, groups, or instances such as `load[3]`
    #[arg(value_name = "TASK", required = true)]
    pub(crate) tasks: Vec<String>,
    /// As succeeded
    #[arg(long)]
    pub(crate) success: bool,
    /// As failed
    #[arg(long)]
    pub(crate) failed: bool,
    /// And all tasks before them
    #[arg(long)]
    pub(crate) upstream: bool,
    /// And all tasks behind them
    #[arg(long)]
    pub(crate) downstream: bool,
    #[command(flatten)]
    pub(crate) around: Around,
}

#[derive(Debug, Args)]
pub(crate) struct CancelArgs {
    /// The run's id, the beginning of it, or `latest`
    pub(crate) run: String,
    /// Only this task, such as `load` or `load[3]` [default: the run]
    pub(crate) task: Option<String>,
    #[command(flatten)]
    pub(crate) signature: Signature,
    #[command(flatten)]
    pub(crate) entrance: Entrance,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("did").required(true).args(["committed", "not_committed"])))]
pub(crate) struct ResolveArgs {
    /// The run's id, the beginning of it, or `latest`
    pub(crate) run: String,
    /// The task, such as `load` or `load[3]`
    pub(crate) task: String,
    /// What it was doing took effect
    #[arg(long)]
    pub(crate) committed: bool,
    /// It did not
    #[arg(long)]
    pub(crate) not_committed: bool,
    /// The segment of its script that is meant, from 1: refused when another one is in doubt by now [default: the one in doubt]
    #[arg(long, value_name = "N")]
    pub(crate) segment: Option<u32>,
    #[command(flatten)]
    pub(crate) signature: Signature,
    #[command(flatten)]
    pub(crate) entrance: Entrance,
}
