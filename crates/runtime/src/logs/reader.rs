//! Reads the log of a try back, wherever its lines are, also while it grows.

use super::{RUN_FILE, TryFile, file_stem, hours};
use backstop_core::{InstanceId, RunId};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

/// Bytes read in one go.
const CHUNK: u64 = 256 * 1024;

/// The tries of an instance that have a log, in order. `since` is when the run was asked for: nothing older is looked through.
pub fn log_tries(root: &Path, run: &RunId, since: Timestamp, instance: &InstanceId) -> Vec<u32> {
    let start = format!("{}.try-", file_stem(instance));
    let folder = root.join(run.as_str());
    let number = |name: &str| name.strip_prefix(&start)?.parse().ok();
    let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
    let mut tries: BTreeSet<u32> =
        entries.filter_map(|entry| number(entry.file_name().to_str()?.strip_suffix(".log")?)).collect();
    if let Ok(shared) = File::open(folder.join("run.log")) {
        let lines = BufReader::new(shared).lines().map_while(Result::ok);
        tries.extend(lines.filter_map(|line| number(line.split_once('\t')?.0)));
    }
    let of_run = format!("{run}\t");
    for hour in hours::since(root, since).unwrap_or_default() {
        let Ok(file) = File::open(hour) else { continue };
        let lines = BufReader::new(file).lines().map_while(Result::ok);
        tries.extend(lines.filter_map(|line| number(line.strip_prefix(&of_run)?.split_once('\t')?.0)));
    }
    tries.into_iter().collect()
}

/// A place in the log of a try; of use for that try only. As text it is a cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogPosition {
    /// Bytes of the try's lines given so far.
    given: u64,
    /// How far the file is read that lines came from last, of those that tries share.
    at: u64,
    /// Its name; empty before the first line.
    file: String,
}

impl std::fmt::Display for LogPosition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.given, self.at, self.file)
    }
}

/// A text that is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no place in a log")]
pub struct NoPosition;

impl std::str::FromStr for LogPosition {
    type Err = NoPosition;

    fn from_str(text: &str) -> Result<Self, NoPosition> {
        let mut parts = text.splitn(3, '.');
        let mut number = || parts.next().and_then(|part| part.parse().ok()).ok_or(NoPosition);
        let (given, at) = (number()?, number()?);
        // The name is compared with those of files that are there, and opens nothing.
        let file = parts.next().ok_or(NoPosition)?.to_owned();
        Ok(Self { given, at, file })
    }
}

/// Reads the lines of one try.
#[derive(Debug)]
pub struct LogReader {
    of: TryFile,
    since: Timestamp,
    /// Bytes of the try's lines given so far.
    given: u64,
    /// How far the files are read that others share.
    read: BTreeMap<PathBuf, u64>,
    /// The file that lines came from last: those before it have no more.
    stands: LogPosition,
}

impl LogReader {
    /// A reader at the first line. `since` is when the run was asked for: nothing older is looked through.
    pub fn new(root: &Path, run: &RunId, since: Timestamp, instance: &InstanceId, try_number: u32) -> Self {
        Self {
            of: TryFile::new(root, run, instance, try_number),
            since,
            given: 0,
            read: BTreeMap::new(),
            stands: LogPosition::default(),
        }
    }

    /// The same reader, going on where another stood.
    #[must_use]
    pub fn at(mut self, position: LogPosition) -> Self {
        self.given = position.given;
        self.stands = position;
        self
    }

    /// Where the reader stands.
    pub fn position(&self) -> LogPosition {
        LogPosition { given: self.given, ..self.stands.clone() }
    }

    /// Some of what is new, in whole lines; empty when there is nothing new (ask again later).
    ///
    /// # Errors
    /// When a file is there and cannot be read.
    pub fn read_new(&mut self) -> io::Result<Vec<u8>> {
        match File::open(&self.of.own) {
            Ok(mut own) => {
                own.seek(SeekFrom::Start(self.given))?;
                let lines = whole_lines(&mut own)?;
                self.given += lines.len() as u64;
                Ok(lines)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.read_shared(),
            Err(error) => Err(error),
        }
    }

    /// True when the try has said something so far.
    pub fn has_given(&self) -> bool {
        self.given > 0
    }

    /// First the hours, then the run's file: in that order they are written.
    fn read_shared(&mut self) -> io::Result<Vec<u8>> {
        let in_hour = format!("{}\t{}\t", self.of.run, self.of.name).into_bytes();
        for hour in hours::since(&self.of.root, self.since)? {
            if self.is_behind(&hour) {
                continue;
            }
            let lines = self.read_lines(hour, &in_hour)?;
            if !lines.is_empty() {
                return Ok(lines);
            }
        }
        let in_run = format!("{}\t", self.of.name).into_bytes();
        self.read_lines(self.of.shared.clone(), &in_run)
    }

    /// Whether lines have come from a file that is written later.
    fn is_behind(&self, hour: &Path) -> bool {
        let last = self.stands.file.as_str();
        last == RUN_FILE || name(hour) < last
    }

    /// The next lines of a file that begin so, without that beginning.
    fn read_lines(&mut self, path: PathBuf, start: &[u8]) -> io::Result<Vec<u8>> {
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let from = if name(&path) == self.stands.file { self.stands.at } else { 0 };
        let name = name(&path).to_owned();
        let at = self.read.entry(path).or_insert(from);
        file.seek(SeekFrom::Start(*at))?;
        loop {
            let chunk = whole_lines(&mut file)?;
            if chunk.is_empty() {
                return Ok(chunk);
            }
            *at += chunk.len() as u64;
            // What was read of an unfinished line is read again.
            file.seek(SeekFrom::Start(*at))?;
            let mut lines = Vec::new();
            for line in chunk.split_inclusive(|byte| *byte == b'\n') {
                if let Some(line) = line.strip_prefix(start) {
                    lines.extend_from_slice(line);
                }
            }
            if !lines.is_empty() {
                self.given += lines.len() as u64;
                self.stands = LogPosition { given: self.given, at: *at, file: name };
                return Ok(lines);
            }
        }
    }
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// Up to a chunk, cut behind its last line feed. A line longer than a chunk is read whole.
fn whole_lines(file: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let read = file.take(CHUNK).read_to_end(&mut bytes)?;
        if let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') {
            bytes.truncate(end + 1);
            return Ok(bytes);
        }
        if read == 0 {
            return Ok(Vec::new());
        }
    }
}
