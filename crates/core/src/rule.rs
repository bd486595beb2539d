//! The thirteen trigger rules: pure functions of counters.
//!
//! Source: Airflow's ti_deps/deps/trigger_rule_dep.py. Marking is immediate: an `all_success` task is skipped at its first skipped
//! upstream and does not wait for the others. One thing differs: an upstream that is removed from the run counts as absent under
//! every rule, where Airflow lets some rules wait for ever (`all_skipped`) or fail (`one_success`). When all are absent the task
//! runs, as a task without upstreams does.

use crate::state::InstancePhase;

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

/// What a rule says of a task, so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not decided yet.
    Wait,
    /// It may run.
    Run,
    /// It is skipped.
    Skip,
    /// It cannot run because of an upstream.
    UpstreamFailed,
}

/// Upstream instances by outcome. Those that are not done are the rest of `total`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpstreamCounts {
    /// All instances. A mapped task counts as one until it is expanded.
    pub total: u32,
    /// Succeeded.
    pub success: u32,
    /// Failed for good.
    pub failed: u32,
    /// Skipped.
    pub skipped: u32,
    /// Could not run because of their own upstreams.
    pub upstream_failed: u32,
    /// Not part of the run.
    pub removed: u32,
}

impl UpstreamCounts {
    /// Counts an instance that is done. Other phases count nothing.
    pub fn add(&mut self, phase: InstancePhase) {
        if let Some(count) = self.of(phase) {
            *count += 1;
        }
    }

    /// Takes back what [`Self::add`] counted.
    pub fn remove(&mut self, phase: InstancePhase) {
        if let Some(count) = self.of(phase) {
            *count -= 1;
        }
    }

    fn of(&mut self, phase: InstancePhase) -> Option<&mut u32> {
        match phase {
            // Within a transaction, what is done is there for the tasks behind it; from outside nobody waits for a member.
            InstancePhase::Success | InstancePhase::Held => Some(&mut self.success),
            InstancePhase::Failed | InstancePhase::RolledBack => Some(&mut self.failed),
            InstancePhase::Skipped => Some(&mut self.skipped),
            InstancePhase::UpstreamFailed => Some(&mut self.upstream_failed),
            InstancePhase::Removed => Some(&mut self.removed),
            InstancePhase::None
            | InstancePhase::Scheduled
            | InstancePhase::Running
            | InstancePhase::Deferred { .. }
            | InstancePhase::UpForRetry { .. }
            | InstancePhase::InDoubt => None,
        }
    }

    /// Instances that are part of the run.
    pub fn present(&self) -> u32 {
        self.total - self.removed
    }

    /// True when nothing is awaited any more.
    pub fn all_done(&self) -> bool {
        self.success + self.any_failed() + self.skipped == self.present()
    }

    /// Failed, themselves or through their upstreams.
    fn any_failed(&self) -> u32 {
        self.failed + self.upstream_failed
    }
}

impl TriggerRule {
    /// Every rule.
    pub const ALL: [Self; 13] = [
        Self::AllSuccess,
        Self::AllFailed,
        Self::AllDone,
        Self::AllDoneMinOneSuccess,
        Self::AllDoneSetupSuccess,
        Self::OneSuccess,
        Self::OneFailed,
        Self::OneDone,
        Self::NoneFailed,
        Self::NoneFailedMinOneSuccess,
        Self::NoneSkipped,
        Self::AllSkipped,
        Self::Always,
    ];

    /// Airflow's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AllSuccess => "all_success",
            Self::AllFailed => "all_failed",
            Self::AllDone => "all_done",
            Self::AllDoneMinOneSuccess => "all_done_min_one_success",
            Self::AllDoneSetupSuccess => "all_done_setup_success",
            Self::OneSuccess => "one_success",
            Self::OneFailed => "one_failed",
            Self::OneDone => "one_done",
            Self::NoneFailed => "none_failed",
            Self::NoneFailedMinOneSuccess => "none_failed_min_one_success",
            Self::NoneSkipped => "none_skipped",
            Self::AllSkipped => "all_skipped",
            Self::Always => "always",
        }
    }

    /// What the rule says, from all direct upstreams and from the setups among them.
    ///
    /// Once it says `Run` it keeps saying so, unless an upstream is cleared or marked. Between `Skip` and `UpstreamFailed` it may still change, so a
    /// task is judged only after all marks of the tasks above it.
    pub fn verdict(self, direct: &UpstreamCounts, direct_setups: &UpstreamCounts) -> Verdict {
        if direct.present() == 0 {
            return Verdict::Run;
        }
        let all = direct.present();
        let all_done = direct.all_done();
        let failed = direct.any_failed();
        let first =
            |choices: &[(bool, Verdict)]| choices.iter().find(|(holds, _)| *holds).map_or(Verdict::Wait, |(_, verdict)| *verdict);
        use Verdict::{Run, Skip, UpstreamFailed};
        match self {
            Self::AllSuccess => first(&[(failed > 0, UpstreamFailed), (direct.skipped > 0, Skip), (direct.success == all, Run)]),
            Self::AllFailed => first(&[(direct.success + direct.skipped > 0, Skip), (failed == all, Run)]),
            Self::AllDone => first(&[(all_done, Run)]),
            Self::AllDoneMinOneSuccess => {
                first(&[(direct.skipped > 0, Skip), (all_done && direct.success == 0, UpstreamFailed), (all_done, Run)])
            }
            Self::AllDoneSetupSuccess => first(&[
                (!all_done, Verdict::Wait),
                (direct_setups.present() == 0 || direct_setups.success > 0, Run),
                (direct_setups.skipped == direct_setups.present(), Skip),
                (true, UpstreamFailed),
            ]),
            Self::OneSuccess => first(&[(direct.success > 0, Run), (direct.skipped == all, Skip), (all_done, UpstreamFailed)]),
            Self::OneFailed => first(&[(failed > 0, Run), (all_done, Skip)]),
            Self::OneDone => first(&[(direct.success + direct.failed > 0, Run), (all_done, Skip)]),
            Self::NoneFailed => first(&[(failed > 0, UpstreamFailed), (all_done, Run)]),
            Self::NoneFailedMinOneSuccess => {
                first(&[(failed > 0, UpstreamFailed), (direct.skipped == all, Skip), (all_done, Run)])
            }
            Self::NoneSkipped => first(&[(direct.skipped > 0, Skip), (all_done, Run)]),
            Self::AllSkipped => first(&[(direct.success + failed > 0, Skip), (direct.skipped == all, Run)]),
            Self::Always => Run,
        }
    }
}

/// What indirect setups say of a task that is no teardown: `Run` when it need not wait for them.
pub fn setup_verdict(indirect_setups: &UpstreamCounts) -> Verdict {
    if indirect_setups.any_failed() > 0 {
        Verdict::UpstreamFailed
    } else if indirect_setups.skipped > 0 {
        Verdict::Skip
    } else if indirect_setups.all_done() {
        Verdict::Run
    } else {
        Verdict::Wait
    }
}
