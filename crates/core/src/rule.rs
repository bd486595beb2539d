//! The thirteen trigger rules: pure functions of counters.

/// Airflow's trigger rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TriggerRule {
    /// Every upstream succeeded. The default.
    #[default]
    AllSuccess,
    /// Every upstream failed.
    AllFailed,
    /// Every upstream is done.
    AllDone,
    /// Every upstream is done, at least one succeeded, none was skipped.
    AllDoneMinOneSuccess,
    /// Every upstream is done and a setup succeeded (teardowns).
    AllDoneSetupSuccess,
    /// One upstream succeeded.
    OneSuccess,
    /// One upstream failed.
    OneFailed,
    /// One upstream succeeded or failed.
    OneDone,
    /// No upstream failed.
    NoneFailed,
    /// No upstream failed and at least one succeeded.
    NoneFailedMinOneSuccess,
    /// No upstream was skipped.
    NoneSkipped,
    /// Every upstream was skipped.
    AllSkipped,
    /// At once.
    Always,
}
