//! The disk that the service's store and logs are on: a small file system of its own, which is filled to the last byte and freed again.

use backstop_testkit::servers::skip_or_fail;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Room for the store and the logs of a long soak, and little enough to be filled in a moment.
const SIZE: &str = "512m";

/// Mounted over the project's `.backstop` as long as this is there.
pub(crate) struct Disk {
    folder: PathBuf,
}

/// It is full as long as this is there.
pub(crate) struct Full(PathBuf);

impl Drop for Full {
    fn drop(&mut self) {
        fs::remove_file(&self.0).unwrap();
    }
}

impl Disk {
    /// `None` where this user may not mount.
    pub(crate) fn under(project: &Path) -> Option<Self> {
        let folder = project.join(".backstop");
        fs::create_dir_all(&folder).unwrap();
        let options = format!("size={SIZE}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "backstop-soak"]).arg(&folder).output();
        if mounted.is_ok_and(|mounted| mounted.status.success()) {
            return Some(Self { folder });
        }
        skip_or_fail("this user may not mount a file system, so no disk can be filled; run as root");
        None
    }

    /// Leaves no byte of it.
    pub(crate) fn fill(&self) -> Full {
        let path = self.folder.join("filler");
        let mut filler = File::create(&path).unwrap();
        for size in [1 << 20, 4096, 1] {
            let piece = vec![0; size];
            // Until it refuses.
            while filler.write_all(&piece).is_ok() {}
        }
        Full(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a soak that failed still has files open.
        drop(Command::new("umount").arg("-l").arg(&self.folder).status());
    }
}
