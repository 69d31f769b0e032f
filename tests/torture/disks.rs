//! A file system of its own for each node: ext4 on a file of a tmpfs of its own. It can be full, stand still, or fail to
//! write: the file is sparse, so when the tmpfs is full the device below the file system can't take anything new.

use std::path::{Path, PathBuf};

use crate::machine::{is_left, must, perhaps, run};

/// Room on a node's file system: well above what a node wants to keep free.
const SIZE_MIB: u64 = 768;

/// Room below it. Few blocks of the file system are ever written.
const BACKING_MIB: u64 = 400;

/// The disk of one node; taken away when it is dropped.
pub struct Disk {
    backing: PathBuf,
    mounted: PathBuf,
}

impl Disk {
    /// A new one, mounted here.
    ///
    /// # Errors
    /// What this machine lacks for that, in words.
    pub fn new(mounted: &Path) -> Result<Self, String> {
        clear_what_others_left();
        let backing = mounted.with_extension("backing");
        for path in [&backing, &mounted.to_owned()] {
            std::fs::create_dir_all(path).map_err(|error| error.to_string())?;
        }
        let disk = Self { backing, mounted: mounted.to_owned() };
        run(&format!("mount -t tmpfs -o size={BACKING_MIB}m tmpfs {}", disk.backing.display()))?;
        run(&format!("truncate -s {SIZE_MIB}M {}", disk.image()))?;
        run(&format!("mkfs.ext4 -q -m 0 {}", disk.image()))?;
        disk.mount()?;
        Ok(disk)
    }

    fn image(&self) -> String {
        self.backing.join("image").display().to_string()
    }

    fn mount(&self) -> Result<(), String> {
        run(&format!("mount -o loop {} {}", self.image(), self.mounted.display())).map(drop)
    }

    /// Fills it by a file beside the node's data until so many MiB are free; with none, to the last block.
    pub fn fill(&self, free_mib: u64) {
        let (stat, ballast) = (rustix::fs::statvfs(&self.mounted).expect("it is mounted"), self.ballast(&self.mounted));
        // The file needs some blocks to tell which blocks are its own.
        let bytes = (stat.f_bavail * stat.f_frsize).saturating_sub(free_mib.max(4) << 20);
        must(&format!("fallocate -l {bytes} {ballast}"));
        if free_mib == 0 {
            // Ends with an error, when there is no room left.
            perhaps(&format!("dd if=/dev/zero of={ballast} bs=4k oflag=append conv=notrunc"));
        }
    }

    /// Has it take no new block.
    pub fn fail(&self) {
        // Fails as it should, when everything is full.
        perhaps(&format!("dd if=/dev/zero of={} bs=64k", self.ballast(&self.backing)));
    }

    /// Nothing is written from now on; whoever writes waits.
    pub fn freeze(&self) {
        must(&format!("fsfreeze -f {}", self.mounted.display()));
    }

    /// Who waited goes on.
    pub fn thaw(&self) {
        must(&format!("fsfreeze -u {}", self.mounted.display()));
    }

    /// Lets go whoever waits for it, in whatever state it is.
    pub fn release(&self) {
        perhaps(&format!("fsfreeze -u {}", self.mounted.display()));
    }

    /// There is room again, on a file system that was made whole; or, where that can't be, on a new one: then false.
    /// Nobody may use it meanwhile.
    pub fn mend(&self) -> bool {
        perhaps(&format!("rm -f {}", self.ballast(&self.backing)));
        must(&format!("umount {}", self.mounted.display()));
        // It says with its status that it mended something; so it is asked again.
        perhaps(&format!("e2fsck -fy {}", self.image()));
        let whole = run(&format!("e2fsck -fn {}", self.image())).is_ok();
        if !whole {
            must(&format!("mkfs.ext4 -q -F -m 0 {}", self.image()));
        }
        self.mount().expect("it was mounted before");
        whole
    }

    /// There is room again.
    pub fn empty(&self) {
        must(&format!("rm -f {}", self.ballast(&self.mounted)));
    }

    fn ballast(&self, below: &Path) -> String {
        below.join("ballast").display().to_string()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.release();
        // Even while a node that can't be ended still uses it.
        perhaps(&format!("umount -l {}", self.mounted.display()));
        perhaps(&format!("umount -l {}", self.backing.display()));
    }
}

/// Takes away the disks of test processes that were killed.
pub fn clear_what_others_left() {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    for path in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        if path.split('/').any(|name| is_left(name, "entail-")) {
            perhaps(&format!("umount -l {path}"));
        }
    }
}
