//! The codes, which never change their meaning. docs/diagnostics.md explains each.

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $code;)*

        /// Every code.
        pub const ALL: &[&str] = &[$($code),*];
    };
}

codes! {
    /// A file cannot be read.
    UNREADABLE = "B0101";
    /// A file is not UTF-8.
    NOT_UTF8 = "B0102";
    /// A file is too large.
    TOO_LARGE = "B0103";
    /// A path leads out of the project folder.
    OUTSIDE = "B0104";
    /// A file that is named is not there.
    MISSING_FILE = "B0105";
    /// Not YAML.
    YAML_SYNTAX = "B0201";
    /// A key is there twice.
    DUPLICATE_KEY = "B0202";
    /// Too deep, or too many values once aliases are followed.
    YAML_TOO_LARGE = "B0203";
    /// A value of the wrong type.
    WRONG_TYPE = "B0204";
    /// A key nobody knows.
    UNKNOWN_KEY = "B0205";
    /// A key that must be there.
    MISSING_KEY = "B0206";
    /// A key or value of a later version.
    NOT_AVAILABLE = "B0207";
    /// More than one document, or none.
    YAML_DOCUMENTS = "B0208";
    /// Keys that exclude each other.
    CONFLICT = "B0209";
    /// A YAML tag.
    YAML_TAG = "B0210";
    /// Not a duration.
    BAD_DURATION = "B0301";
    /// Not a size.
    BAD_SIZE = "B0302";
    /// Not a schedule.
    BAD_SCHEDULE = "B0303";
    /// Not a time zone.
    BAD_TIMEZONE = "B0304";
    /// Not a date or time.
    BAD_DATE = "B0305";
    /// Not an id.
    BAD_ID = "B0306";
    /// A value that is none of those allowed, or out of range.
    BAD_VALUE = "B0307";
    /// A parameter whose default, type and choices disagree.
    BAD_PARAM = "B0308";
    /// Two DAGs have one id.
    DUPLICATE_DAG = "B0401";
    /// `after` names what is not there.
    UNKNOWN_UPSTREAM = "B0402";
    /// Tasks wait for each other.
    CYCLE = "B0403";
    /// A task that can never run.
    UNREACHABLE = "B0404";
    /// A branch names what is not its direct downstream.
    BRANCH_TARGET = "B0405";
    /// Setups and teardowns that do not fit.
    SETUP_TEARDOWN = "B0406";
    /// A DAG or group without tasks.
    NO_TASKS = "B0407";
    /// The state machine refuses the DAG for a reason that no other check found.
    REFUSED_BY_CORE = "B0408";
    /// A task names a DAG, or a task of one, that is not there.
    UNKNOWN_DAG = "B0409";
    /// A DAG that waits for itself, or DAGs that wait for each other.
    WAITS_FOR_ITSELF = "B0410";
    /// Parameters for a run of another DAG that it does not take.
    WRONG_PARAMS = "B0411";
    /// A schedule by an asset that nobody updates, beside one much like it.
    ASSET_NOBODY_UPDATES = "B0412";
    /// A connection that is not there.
    UNKNOWN_CONNECTION = "B0501";
    /// A type of connection that Backstop does not know.
    UNKNOWN_CONNECTION_TYPE = "B0502";
    /// A task that needs a connection has none.
    NO_CONNECTION = "B0503";
    /// A pool that is not there.
    UNKNOWN_POOL = "B0504";
    /// A notifier that is not there.
    UNKNOWN_NOTIFIER = "B0505";
    /// A connection that cannot be read.
    BAD_CONNECTION = "B0506";
    /// `${NAME}` of a variable that is not set.
    MISSING_ENVIRONMENT = "B0507";
    /// A password that is too short to be masked.
    SHORT_PASSWORD = "B0508";
    /// A template that cannot be parsed.
    TEMPLATE_SYNTAX = "B0601";
    /// A template that uses a name that is not there.
    TEMPLATE_NAME = "B0602";
    /// A template that uses what templates must not.
    TEMPLATE_REFUSED = "B0603";
    /// A template pulls the result of a task that is not there.
    PULL_FROM_NOBODY = "B0604";
    /// A template pulls the result of a task that keeps none.
    PULL_OF_NOTHING = "B0605";
    /// A template pulls the result of a task that its own task does not wait for.
    PULL_BEFORE_END = "B0606";
    /// A task in a transaction whose kind cannot take part.
    TRANSACTION_KIND = "B0801";
    /// A task in a transaction of another connection.
    TRANSACTION_CONNECTION = "B0802";
    /// A setting that a task in a transaction cannot have.
    TRANSACTION_SETTING = "B0803";
    /// A transaction in a transaction.
    TRANSACTION_NESTED = "B0804";
}
