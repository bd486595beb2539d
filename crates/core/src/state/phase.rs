//! The phases of a run and of its task instances, with the names people know.

use jiff::Timestamp;

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RunPhase {
    /// Created, not begun.
    Queued,
    /// Tasks run, or wait for slots, timers or each other.
    Running,
    /// Somebody or a time-out ended it; what was running has not answered yet.
    Cancelling,
    /// Only instances in doubt are left, and nobody to ask but a person.
    Stuck,
    /// Over: every effective leaf succeeded or was skipped.
    Succeeded,
    /// Over: an effective leaf failed, or the run took too long.
    Failed,
    /// Over: somebody ended it.
    Cancelled,
}

impl RunPhase {
    /// Every phase.
    pub const ALL: [Self; 7] =
        [Self::Queued, Self::Running, Self::Cancelling, Self::Stuck, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// Airflow's name where it has one.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Cancelling => "cancelling",
            Self::Stuck => "stuck",
            Self::Succeeded => "success",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// True when nothing but a person changes it.
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Queued | Self::Running | Self::Cancelling | Self::Stuck => false,
            Self::Succeeded | Self::Failed | Self::Cancelled => true,
        }
    }
}

/// Where a task instance is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum InstancePhase {
    /// Its trigger rule is not decided yet.
    #[default]
    None,
    /// It waits for slots.
    Scheduled,
    /// An attempt is going on; it holds slots.
    Running,
    /// A sensor waits to look again. Holds no slot.
    Deferred {
        /// When to look again.
        until: Timestamp,
    },
    /// It failed and waits for its next try. Holds no slot.
    UpForRetry {
        /// When the wait is over.
        at: Timestamp,
    },
    /// Nobody knows what its last attempt committed. Holds no slot.
    InDoubt,
    /// Done, in a transaction that is still open: not committed. Holds no slot.
    Held,
    /// Done.
    Success,
    /// Failed for good.
    Failed,
    /// Not run, by choice.
    Skipped,
    /// Not run, because of an upstream.
    UpstreamFailed,
    /// It had done its work, and the transaction that it shared was rolled back for good.
    RolledBack,
    /// Not part of this run.
    Removed,
}

impl InstancePhase {
    /// Airflow's name where it has one.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Scheduled => "scheduled",
            Self::Running => "running",
            Self::Deferred { .. } => "up_for_reschedule",
            Self::UpForRetry { .. } => "up_for_retry",
            Self::InDoubt => "in_doubt",
            Self::Held => "done_not_committed",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::UpstreamFailed => "upstream_failed",
            Self::RolledBack => "rolled_back",
            Self::Removed => "removed",
        }
    }

    /// True when nothing but a person changes it.
    pub fn is_done(self) -> bool {
        match self {
            Self::None
            | Self::Scheduled
            | Self::Running
            | Self::Deferred { .. }
            | Self::UpForRetry { .. }
            | Self::InDoubt
            | Self::Held => false,
            Self::Success | Self::Failed | Self::Skipped | Self::UpstreamFailed | Self::RolledBack | Self::Removed => true,
        }
    }
}

/// How many instances are in each phase. A mapped task counts as one until it is expanded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the phases")]
pub struct PhaseCounts {
    pub none: usize,
    pub scheduled: usize,
    pub running: usize,
    pub deferred: usize,
    pub up_for_retry: usize,
    pub in_doubt: usize,
    pub held: usize,
    pub success: usize,
    pub failed: usize,
    pub skipped: usize,
    pub upstream_failed: usize,
    pub rolled_back: usize,
    pub removed: usize,
}

impl PhaseCounts {
    pub(super) fn of(&mut self, phase: InstancePhase) -> &mut usize {
        match phase {
            InstancePhase::None => &mut self.none,
            InstancePhase::Scheduled => &mut self.scheduled,
            InstancePhase::Running => &mut self.running,
            InstancePhase::Deferred { .. } => &mut self.deferred,
            InstancePhase::UpForRetry { .. } => &mut self.up_for_retry,
            InstancePhase::InDoubt => &mut self.in_doubt,
            InstancePhase::Held => &mut self.held,
            InstancePhase::Success => &mut self.success,
            InstancePhase::Failed => &mut self.failed,
            InstancePhase::Skipped => &mut self.skipped,
            InstancePhase::UpstreamFailed => &mut self.upstream_failed,
            InstancePhase::RolledBack => &mut self.rolled_back,
            InstancePhase::Removed => &mut self.removed,
        }
    }

    /// Instances that will never change.
    pub fn done(&self) -> usize {
        self.success + self.failed + self.skipped + self.upstream_failed + self.rolled_back + self.removed
    }

    /// Instances that may still change.
    pub fn undone(&self) -> usize {
        self.none + self.scheduled + self.running + self.deferred + self.up_for_retry + self.in_doubt + self.held
    }
}
