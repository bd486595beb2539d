//! The command line of what is done to a store as a whole.

use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Check the file, and compare what lists show of every run with its log
    Check(CheckArgs),
    /// Write a copy of the store, while it is in use
    Backup(BackupArgs),
    /// Say how large the store is, and what is in it
    Info {
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove old runs that are over, with their markers and their logs
    Prune(PruneArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Make what lists show anew from the logs, where it differs
    #[arg(long)]
    pub(crate) repair: bool,
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// A file that is not there yet
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Runs that ended so long ago: 90d, 12h
    #[arg(long, value_name = "AGE", value_parser = crate::markers::parse_age)]
    pub(crate) older_than: Option<Duration>,
    /// Runs that are not among the newest so many of their DAG, however young
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep: Option<u32>,
    /// Say what would go, and remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Why; kept in the audit
    #[arg(long, value_name = "TEXT", required_unless_present = "dry_run", value_parser = crate::service::reason)]
    pub(crate) reason: Option<String>,
    /// Who [default: the user of the operating system]
    #[arg(long, value_name = "NAME", value_parser = crate::service::name_of_who)]
    pub(crate) who: Option<String>,
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
}
