//! A file system in user space for a node's data: it passes all on to a directory beside it, as far as nothing ails it
//! (`ills`). It runs on threads of the test process, and is mounted by the system call, so no libfuse is needed.
//!
//! The kernel keeps neither pages (each read of a node comes here) nor names and sizes. Locks on files are the kernel's
//! own: it does without the file system where that does not have them. Links, and changes of times, owners and extended
//! attributes, are nothing that a node makes.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use crate::ills::Ills;
use crate::tree::Tree;

/// For so long the kernel need not ask again.
const KEPT: Duration = Duration::ZERO;

/// A file or directory that somebody has open.
struct Open {
    node: INodeNo,
    file: File,
    /// What a directory held when it was opened.
    entries: Vec<(INodeNo, FileType, OsString)>,
}

/// Everything that is open, by the numbers that the kernel was given.
#[derive(Default)]
struct Opened {
    all: HashMap<u64, Arc<Open>>,
    next: u64,
}

/// The file system.
pub struct PassThrough {
    ills: Arc<Ills>,
    tree: Mutex<Tree>,
    opened: Mutex<Opened>,
}

impl PassThrough {
    /// To this directory, which is there.
    pub fn new(backing: &Path, ills: Arc<Ills>) -> Self {
        Self { ills, tree: Mutex::new(Tree::new(backing.to_owned())), opened: Mutex::default() }
    }

    fn tree(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self) -> MutexGuard<'_, Opened> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, node: INodeNo) -> io::Result<PathBuf> {
        self.tree().path(node)
    }

    fn below(&self, parent: INodeNo, name: &OsStr) -> io::Result<PathBuf> {
        Ok(self.path(parent)?.join(name))
    }

    /// What is at a path, under the number that it has or gets.
    fn found(&self, path: &Path) -> io::Result<FileAttr> {
        let data = fs::symlink_metadata(path)?;
        Ok(attributes(self.tree().number(path), &data))
    }

    fn keep(&self, open: Open) -> FileHandle {
        let mut opened = self.opened();
        opened.next += 1;
        let handle = opened.next;
        opened.all.insert(handle, Arc::new(open));
        FileHandle(handle)
    }

    fn at(&self, handle: FileHandle) -> io::Result<Arc<Open>> {
        self.opened().all.get(&handle.0).cloned().ok_or_else(|| rustix::io::Errno::BADF.into())
    }

    /// A file that is open: by its handle, or any handle of it; one that was unlinked has no path any more.
    fn any(&self, node: INodeNo, handle: Option<FileHandle>) -> io::Result<Arc<Open>> {
        if let Some(handle) = handle {
            return self.at(handle);
        }
        let opened = self.opened();
        let found = opened.all.values().find(|open| open.node == node).cloned();
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn attributes(&self, node: INodeNo, handle: Option<FileHandle>) -> io::Result<FileAttr> {
        let by_path = self.path(node).and_then(fs::symlink_metadata);
        let data = by_path.or_else(|_| self.any(node, handle)?.file.metadata())?;
        Ok(attributes(node, &data))
    }

    fn resize(&self, node: INodeNo, handle: Option<FileHandle>, size: u64) -> io::Result<()> {
        self.ills.on_write();
        match handle {
            Some(handle) => self.at(handle)?.file.set_len(size),
            None => File::options().write(true).open(self.path(node)?)?.set_len(size),
        }
    }

    fn make(&self, path: &Path, mode: u32, flags: i32) -> io::Result<(FileAttr, FileHandle)> {
        // Whether it may exist, and is to be cut, the kernel has settled before.
        let file = options(OpenFlags(flags)).create(true).truncate(false).mode(mode).open(path)?;
        let found = self.found(path)?;
        Ok((found, self.keep(Open { node: found.ino, file, entries: Vec::new() })))
    }

    fn list(&self, node: INodeNo) -> io::Result<FileHandle> {
        self.ills.on_read()?;
        let path = self.path(node)?;
        let mut entries = vec![(node, FileType::Directory, ".".into()), (node, FileType::Directory, "..".into())];
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            let kind = FileType::from_std(entry.file_type()?).unwrap_or(FileType::RegularFile);
            entries.push((self.tree().number(&entry.path()), kind, entry.file_name()));
        }
        Ok(self.keep(Open { node, file: File::open(&path)?, entries }))
    }

    fn read_some(&self, handle: FileHandle, offset: u64, size: u32) -> io::Result<Vec<u8>> {
        self.ills.on_read()?;
        let open = self.at(handle)?;
        let mut bytes = vec![0; size as usize];
        let mut filled = 0;
        while filled < bytes.len() {
            match open.file.read_at(&mut bytes[filled..], offset + filled as u64)? {
                0 => break,
                more => filled += more,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    fn sync(&self, handle: FileHandle, datasync: bool) -> io::Result<()> {
        self.ills.on_sync()?;
        let open = self.at(handle)?;
        if datasync { open.file.sync_data() } else { open.file.sync_all() }
    }

    fn release_handle(&self, handle: FileHandle, reply: ReplyEmpty) {
        let released = self.opened().all.remove(&handle.0);
        // Before the answer, so that nothing is open any more when the node's process is gone.
        drop(released);
        reply.ok();
    }
}

fn options(flags: OpenFlags) -> OpenOptions {
    let mut options = File::options();
    // The kernel has made places of what is appended.
    options.read(true).write(flags.acc_mode() != OpenAccMode::O_RDONLY);
    options
}

fn attributes(ino: INodeNo, data: &Metadata) -> FileAttr {
    FileAttr {
        ino,
        size: data.size(),
        blocks: data.blocks(),
        atime: data.accessed().unwrap_or(SystemTime::UNIX_EPOCH),
        mtime: data.modified().unwrap_or(SystemTime::UNIX_EPOCH),
        ctime: SystemTime::UNIX_EPOCH + Duration::from_secs(data.ctime().unsigned_abs()),
        crtime: SystemTime::UNIX_EPOCH,
        kind: FileType::from_std(data.file_type()).unwrap_or(FileType::RegularFile),
        perm: (data.mode() & 0o7777) as u16,
        nlink: data.nlink() as u32,
        uid: data.uid(),
        gid: data.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn entry(found: io::Result<FileAttr>, reply: ReplyEntry) {
    match found {
        Ok(found) => reply.entry(&KEPT, &found, Generation(0)),
        Err(error) => reply.error(error_of(error)),
    }
}

fn empty(done: io::Result<()>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error_of(error)),
    }
}

fn opened(handle: io::Result<FileHandle>, flags: FopenFlags, reply: ReplyOpen) {
    match handle {
        Ok(handle) => reply.opened(handle, flags),
        Err(error) => reply.error(error_of(error)),
    }
}

/// One of our own making has no number, and always means that something is not there.
fn error_of(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::ENOENT, Errno::from_i32)
}

impl Filesystem for PassThrough {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(self.below(parent, name).and_then(|path| self.found(&path)), reply);
    }

    fn getattr(&self, _: &Request, node: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(node, handle) {
            Ok(found) => reply.attr(&KEPT, &found),
            Err(error) => reply.error(error_of(error)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        node: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let resized = size.map_or(Ok(()), |size| self.resize(node, handle, size));
        let set = resized.and_then(|()| match mode {
            Some(mode) => fs::set_permissions(self.path(node)?, Permissions::from_mode(mode & 0o7777)),
            None => Ok(()),
        });
        match set.and_then(|()| self.attributes(node, handle)) {
            Ok(found) => reply.attr(&KEPT, &found),
            Err(error) => reply.error(error_of(error)),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let made = self.below(parent, name).and_then(|path| {
            fs::DirBuilder::new().mode(mode & !umask).create(&path)?;
            self.found(&path)
        });
        entry(made, reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self.below(parent, name).and_then(|path| {
            fs::remove_file(&path)?;
            self.tree().remove(&path);
            Ok(())
        });
        empty(done, reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self.below(parent, name).and_then(|path| {
            fs::remove_dir(&path)?;
            self.tree().remove(&path);
            Ok(())
        });
        empty(done, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let done = self.below(parent, name).and_then(|from| {
            let to = self.below(new_parent, new_name)?;
            // Nobody may look up the new name in between.
            let mut tree = self.tree();
            fs::rename(&from, &to)?;
            tree.rename(&from, &to);
            Ok(())
        });
        empty(done, reply);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        match self.below(parent, name).and_then(|path| self.make(&path, mode & !umask, flags)) {
            Ok((made, handle)) => reply.created(&KEPT, &made, Generation(0), handle, FopenFlags::FOPEN_DIRECT_IO),
            Err(error) => reply.error(error_of(error)),
        }
    }

    fn open(&self, _: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let file = self.path(node).and_then(|path| options(flags).open(path));
        let handle = file.map(|file| self.keep(Open { node, file, entries: Vec::new() }));
        opened(handle, FopenFlags::FOPEN_DIRECT_IO, reply);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.read_some(handle, offset, size) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error_of(error)),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.ills.on_write();
        match self.at(handle).and_then(|open| open.file.write_all_at(data, offset)) {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(error_of(error)),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, datasync: bool, reply: ReplyEmpty) {
        empty(self.sync(handle, datasync), reply);
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.release_handle(handle, reply);
    }

    fn opendir(&self, _: &Request, node: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        opened(self.list(node), FopenFlags::empty(), reply);
    }

    fn readdir(&self, _: &Request, _: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let open = match self.at(handle) {
            Ok(open) => open,
            Err(error) => return reply.error(error_of(error)),
        };
        for (next, (node, kind, name)) in (1..).zip(&open.entries).skip(offset as usize) {
            // True when no more fits; the kernel asks again from there.
            if reply.add(*node, next, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, handle: FileHandle, datasync: bool, reply: ReplyEmpty) {
        empty(self.sync(handle, datasync), reply);
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.release_handle(handle, reply);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let found = self.path(INodeNo::ROOT).and_then(|root| Ok(rustix::fs::statvfs(root)?));
        match found {
            Ok(stat) => {
                let (blocks, free, available) = (stat.f_blocks, stat.f_bfree, stat.f_bavail);
                let (size, unit, longest) = (stat.f_bsize as u32, stat.f_frsize as u32, stat.f_namemax as u32);
                reply.statfs(blocks, free, available, stat.f_files, stat.f_ffree, size, longest, unit);
            }
            Err(error) => reply.error(error_of(error)),
        }
    }
}
